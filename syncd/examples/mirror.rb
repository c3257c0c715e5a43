# frozen_string_literal: true

# Read syncd's mirror: which variants may be sold? Copy this file; it needs the gem sqlite3 (Debian:
# ruby-sqlite3).
#
#     require_relative 'mirror'
#     mirror = Mirror.new
#     mirror.may_sell(48_211, 48_212) # the ids that may be sold now
#
# A mirror object belongs to one thread.

require 'json'
require 'sqlite3'

# The mirror, opened for reading; after an error, a query runs once more on a new connection.
class Mirror
  MAY_SELL = <<~SQL
    SELECT variant_id FROM availability
    WHERE variant_id IN (SELECT value FROM json_each(?)) AND sellable = 1
    AND confirmed_at > strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-1 day')
    AND (SELECT daemon_seen_at FROM freshness)
        BETWEEN strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-5 minutes')
            AND strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+1 minute')
  SQL

  def initialize(path = '/var/lib/syncd/availability.db')
    @path = path
    @db = nil
  end

  # Which of these variants may be sold now; after an error, none.
  def may_sell(*variant_ids)
    query(MAY_SELL, JSON.generate(variant_ids)).map { |row| row['variant_id'] }
  rescue StandardError => e
    warn "the mirror cannot be read: #{e.message}"
    []
  end

  # The row of one variant, or nil.
  def variant(variant_id)
    query('SELECT * FROM availability WHERE variant_id = ?', variant_id).first
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
