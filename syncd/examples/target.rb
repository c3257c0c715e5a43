# frozen_string_literal: true

# Read the database server into which syncd publishes: what may be sold? Copy this file; it needs the gem
# pg or mysql2 (Debian: ruby-pg, ruby-mysql2).
#
#     require 'pg'
#     require_relative 'target'
#     target = Target.new { PG.connect('postgresql://shop:secret@db.example.com/shop') }
#     target = Target.new { Mysql2::Client.new(host: 'db.example.com', database: 'shop') }
#     target.may_sell(48_211, 48_212) # the ids of variants that may be sold now
#     target.may_sell_skus('TEE-M', 'TEE-L') # the SKUs that may be sold now
#
# A target object belongs to one thread.

# The target; after an error, a query runs once more on a new connection.
class Target
  # The clock of the database decides, so that all hosts agree.
  POSTGRESQL = <<~SQL
    AND a.sellable AND a.confirmed_at > now() - interval '1 day'
    AND f.daemon_seen_at BETWEEN now() - interval '5 minutes' AND now() + interval '1 minute'
  SQL
  MYSQL = <<~SQL
    AND a.sellable AND a.confirmed_at > utc_timestamp() - interval 1 day
    AND f.daemon_seen_at BETWEEN utc_timestamp() - interval 5 minute
        AND utc_timestamp() + interval 1 minute
  SQL

  def initialize(source: 'default', &connect)
    @source = source
    @connect = connect
    @db = nil
  end

  # Which of these variants may be sold now; after an error, none.
  def may_sell(*variant_ids)
    sellable('availability', 'variant_id', variant_ids).map(&:to_i)
  end

  # Which of these SKUs may be sold now; after an error, none.
  def may_sell_skus(*skus)
    sellable('listings', 'sku', skus)
  end

  private

  def sellable(view, key, wanted)
    return [] if wanted.empty?

    attempt = 1
    begin
      @db ||= @connect.call
      query(view, key, wanted)
    rescue StandardError => e
      @db = nil
      if attempt == 2
        warn "the target cannot be read: #{e.message}"
        return []
      end
      attempt += 1
      retry
    end
  end

  def query(view, key, wanted)
    values = [@source, *wanted]
    if @db.respond_to?(:exec_params)
      @db.exec_params(sql(view, key, 'syncd.', (1..values.size).map { |n| "$#{n}" }, POSTGRESQL), values)
         .column_values(0)
    else
      @db.prepare(sql(view, key, 'syncd_', ['?'] * values.size, MYSQL))
         .execute(*values).map { |row| row.values.first }
    end
  end

  def sql(view, key, prefix, places, conditions)
    first, *others = places
    <<~SQL
      SELECT a.#{key} FROM #{prefix}#{view} a JOIN #{prefix}freshness f ON f.source = a.source
      WHERE a.source = #{first} AND a.#{key} IN (#{others.join(', ')}) #{conditions}
    SQL
  end
end
