# frozen_string_literal: true

# Read syncd's mirror: what may be sold? Copy this file; it needs the gem sqlite3 (Debian:
# ruby-sqlite3).
#
#     require_relative 'mirror'
#     mirror = Mirror.new
#     mirror.may_sell(48_211, 48_212) # the ids of variants that may be sold now
#     mirror.may_sell_skus('TEE-M', 'TEE-L') # the SKUs that may be sold now
#
# A mirror object belongs to one thread.

require 'json'
require 'sqlite3'

# The mirror, opened for reading; after an error, a query runs once more on a new connection.
class Mirror
  SELLABLE_NOW = <<~SQL
    AND sellable = 1
    AND confirmed_at > strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-1 day')
    AND (SELECT daemon_seen_at FROM freshness)
        BETWEEN strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-5 minutes')
            AND strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+1 minute')
  SQL
  MAY_SELL = <<~SQL
    SELECT variant_id FROM availability
    WHERE variant_id IN (SELECT value FROM json_each(?)) #{SELLABLE_NOW}
  SQL
  MAY_SELL_SKUS = <<~SQL
    SELECT sku FROM listings
    WHERE sku IN (SELECT value FROM json_each(?)) #{SELLABLE_NOW}
  SQL

  def initialize(path = '/var/lib/syncd/availability.db')
    @path = path
    @db = nil
  end

  # Which of these variants may be sold now; after an error, none.
  def may_sell(*variant_ids)
    sellable(MAY_SELL, variant_ids)
  end

  # Which of these SKUs may be sold now; after an error, none.
  def may_sell_skus(*skus)
    sellable(MAY_SELL_SKUS, skus)
  end

  # The row of one variant, or nil.
  def variant(variant_id)
    query('SELECT * FROM availability WHERE variant_id = ?', variant_id).first
  end

  # The row of one SKU, or nil.
  def listing(sku)
    query('SELECT * FROM listings WHERE sku = ?', sku).first
  end

  # The changes after your stored row. If the feed lacks that row, nil: start over.
  def changes(seq, recorded_at)
    first, *rows = query(<<~SQL, seq)
      SELECT seq, recorded_at, variant_id, availability, sellable
      FROM changes WHERE seq >= ? ORDER BY seq LIMIT 1000
    SQL
    rows if first && [first['seq'], first['recorded_at']] == [seq, recorded_at]
  end

  # A position in the feed, and the content of `availability` at that position or later.
  def start_over
    last = query('SELECT seq, recorded_at FROM changes ORDER BY seq DESC LIMIT 1').first
    all = query('SELECT variant_id, availability, sellable FROM availability')
    [last || { 'seq' => 0, 'recorded_at' => '' }, all]
  end

  private

  def sellable(sql, wanted)
    query(sql, JSON.generate(wanted)).map { |row| row.values.first }
  rescue StandardError => e
    warn "the mirror #{@path} cannot be read: #{e.message}"
    []
  end

  def query(sql, *values)
    attempt = 1
    begin
      @db ||= SQLite3::Database.new(@path, readonly: true, results_as_hash: true).tap do |db|
        db.busy_timeout(1000)
      end
      @db.execute(sql, values)
    rescue SQLite3::Exception
      @db = nil
      raise if attempt == 2

      attempt += 1
      retry
    end
  end
end
