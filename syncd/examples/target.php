<?php

/**
 * Read the database server into which syncd publishes: what may be sold? Copy this file; it needs PDO
 * (Debian: php-pgsql or php-mysql).
 *
 *     require_once 'target.php';
 *     $target = new Target('pgsql:host=db.example.com;dbname=shop', 'shop', $password);
 *     $target = new Target('mysql:host=db.example.com;dbname=shop;charset=utf8mb4', 'shop', $password);
 *     $target->maySell(48211, 48212);           // the ids of variants that may be sold now
 *     $target->maySellSkus('TEE-M', 'TEE-L');   // the SKUs that may be sold now
 */
class Target
{
    // The clock of the database decides, so that all hosts agree.
    private const POSTGRESQL = "AND a.sellable AND a.confirmed_at > now() - interval '1 day'
        AND f.daemon_seen_at BETWEEN now() - interval '5 minutes' AND now() + interval '1 minute'";
    private const MYSQL = 'AND a.sellable AND a.confirmed_at > utc_timestamp() - interval 1 day
        AND f.daemon_seen_at BETWEEN utc_timestamp() - interval 5 minute
            AND utc_timestamp() + interval 1 minute';

    private ?PDO $db = null;

    public function __construct(
        private string $dsn,
        private string $user,
        private string $password,
        private string $source = 'default',
    ) {
    }

    /** Which of these variants may be sold now; after an error, none. */
    public function maySell(int ...$variantIds): array
    {
        return $this->sellable('availability', 'variant_id', $variantIds);
    }

    /** Which of these SKUs may be sold now; after an error, none. */
    public function maySellSkus(string ...$skus): array
    {
        return $this->sellable('listings', 'sku', $skus);
    }

    private function sellable(string $view, string $key, array $wanted): array
    {
        if (!$wanted) {
            return [];
        }
        $isMysql = str_starts_with($this->dsn, 'mysql:');
        $at = $isMysql ? 'syncd_' : 'syncd.';
        $places = implode(', ', array_fill(0, count($wanted), '?'));
        $sql = "SELECT a.$key FROM {$at}$view a JOIN {$at}freshness f ON f.source = a.source
            WHERE a.source = ? AND a.$key IN ($places) "
            . ($isMysql ? self::MYSQL : self::POSTGRESQL);
        for ($attempt = 1;; $attempt++) {
            try {
                $this->db ??= new PDO($this->dsn, $this->user, $this->password, [
                    PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION,
                    PDO::ATTR_TIMEOUT => 3,
                ]);
                $statement = $this->db->prepare($sql);
                $statement->execute([$this->source, ...array_values($wanted)]);
                return $statement->fetchAll(PDO::FETCH_COLUMN);
            } catch (Throwable $error) {
                $statement = $this->db = null;
                if ($attempt === 2) {
                    error_log("the target cannot be read: {$error->getMessage()}");
                    return [];
                }
            }
        }
    }
}
