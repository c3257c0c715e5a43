<?php

/**
 * The mirror with PHP's SQLite3 class instead of PDO. Copy this file and mirror.php.
 *
 *     require_once 'mirror_sqlite3.php';
 *     $mirror = new Sqlite3Mirror();
 *     $mirror->maySell(48211, 48212);           // the ids of variants that may be sold now
 *     $mirror->maySellSkus('TEE-M', 'TEE-L');   // the SKUs that may be sold now
 */
require_once __DIR__ . '/mirror.php';

class Sqlite3Mirror extends Mirror
{
    protected function query(string $sql, array $values = []): array
    {
        for ($attempt = 1;; $attempt++) {
            try {
                if ($this->db === null) {
                    $this->db = new SQLite3($this->path, SQLITE3_OPEN_READONLY);
                    $this->db->enableExceptions(true);
                    $this->db->busyTimeout(1000);
                }
                $statement = $this->db->prepare($sql);
                foreach ($values as $number => $value) {
                    $statement->bindValue($number + 1, $value);
                }
                $result = $statement->execute();
                $rows = [];
                while ($row = $result->fetchArray(SQLITE3_ASSOC)) {
                    $rows[] = $row;
                }
                return $rows;
            } catch (Exception $error) {
                $result = $statement = $this->db = null;
                if ($attempt === 2) {
                    throw $error;
                }
            }
        }
    }
}
