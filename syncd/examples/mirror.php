<?php

/**
 * Read syncd's mirror: what may be sold? Copy this file; it needs PDO (Debian: php-sqlite3).
 *
 *     require_once 'mirror.php';
 *     $mirror = new Mirror();
 *     $mirror->maySell(48211, 48212);           // the ids of variants that may be sold now
 *     $mirror->maySellSkus('TEE-M', 'TEE-L');   // the SKUs that may be sold now
 *
 * Each request creates its own object; a worker can keep one.
 */
class Mirror
{
    private const SELLABLE_NOW = "AND sellable = 1
        AND confirmed_at > strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-1 day')
        AND (SELECT daemon_seen_at FROM freshness)
            BETWEEN strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-5 minutes')
                AND strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+1 minute')";
    private const MAY_SELL = 'SELECT variant_id FROM availability
        WHERE variant_id IN (SELECT value FROM json_each(?)) ' . self::SELLABLE_NOW;
    private const MAY_SELL_SKUS = 'SELECT sku FROM listings
        WHERE sku IN (SELECT value FROM json_each(?)) ' . self::SELLABLE_NOW;

    protected ?object $db = null;

    public function __construct(protected string $path = '/var/lib/syncd/availability.db')
    {
    }

    /** Which of these variants may be sold now; after an error, none. */
    public function maySell(int ...$variantIds): array
    {
        return $this->sellable(self::MAY_SELL, $variantIds);
    }

    /** Which of these SKUs may be sold now; after an error, none. */
    public function maySellSkus(string ...$skus): array
    {
        return $this->sellable(self::MAY_SELL_SKUS, $skus);
    }

    /** The row of one variant, or null. */
    public function variant(int $variantId): ?array
    {
        $rows = $this->query('SELECT * FROM availability WHERE variant_id = ?', [$variantId]);
        return $rows[0] ?? null;
    }

    /** The row of one SKU, or null. */
    public function listing(string $sku): ?array
    {
        $rows = $this->query('SELECT * FROM listings WHERE sku = ?', [$sku]);
        return $rows[0] ?? null;
    }

    /** The changes after your stored row. If the feed lacks that row, null: start over. */
    public function changes(int $seq, string $recordedAt): ?array
    {
        $rows = $this->query('SELECT seq, recorded_at, variant_id, availability, sellable
            FROM changes WHERE seq >= ? ORDER BY seq LIMIT 1000', [$seq]);
        $first = array_shift($rows);
        $isStored = $first && [$first['seq'], $first['recorded_at']] === [$seq, $recordedAt];
        return $isStored ? $rows : null;
    }

    /** A position in the feed, and the content of `availability` at that position or later. */
    public function startOver(): array
    {
        $last = $this->query('SELECT seq, recorded_at FROM changes ORDER BY seq DESC LIMIT 1');
        $all = $this->query('SELECT variant_id, availability, sellable FROM availability');
        return [$last[0] ?? ['seq' => 0, 'recorded_at' => ''], $all];
    }

    private function sellable(string $sql, array $wanted): array
    {
        try {
            $rows = $this->query($sql, [json_encode(array_values($wanted), JSON_THROW_ON_ERROR)]);
        } catch (Throwable $error) {
            error_log("the mirror {$this->path} cannot be read: {$error->getMessage()}");
            return [];
        }
        return array_map('current', $rows);
    }

    protected function query(string $sql, array $values = []): array
    {
        for ($attempt = 1;; $attempt++) {
            try {
                $this->db ??= new PDO("sqlite:{$this->path}", options: [
                    PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION,
                    PDO::ATTR_TIMEOUT => 1,
                    PDO::SQLITE_ATTR_OPEN_FLAGS => PDO::SQLITE_OPEN_READONLY,
                ]);
                $statement = $this->db->prepare($sql);
                $statement->execute($values);
                return $statement->fetchAll(PDO::FETCH_ASSOC);
            } catch (PDOException $error) {
                $statement = $this->db = null;
                if ($attempt === 2) {
                    throw $error;
                }
            }
        }
    }
}
