"""The views of this version. Once a version is released, its texts never change."""

from __future__ import annotations

# When the last delivery arrived. A test delivery of `syncd doctor` does not count. The state has
# the times that the newest row does not show: of a copy, a deleted row, or a row before a test
# delivery.
LAST_DELIVERY_AT = """SELECT max(at) FROM (
            SELECT value AS at FROM state WHERE key = 'last_delivery_at'
            UNION ALL
            SELECT received_at FROM deliveries
            WHERE delivery_id = (SELECT max(delivery_id) FROM deliveries)
                AND action IS NOT 'syncd-doctor')"""

# When a value was last known to be true: the read of the item confirms each of its variants.
_CONFIRMED_AT = """CASE WHEN v.conflicting_values IS NULL AND v.missing_since IS NULL
            THEN max(v.confirmed_at, coalesce(i.confirmed_at, ''))
            ELSE v.confirmed_at END"""

# Why a variant that the mirror has is not sold: the first reason that applies.
REASON = """CASE WHEN v.sellable THEN NULL
            WHEN v.value IS NULL THEN 'removed'
            WHEN v.conflicting_values IS NOT NULL THEN 'verifying'
            WHEN i.is_blocked THEN 'item'
            ELSE 'value' END"""

AVAILABILITY = f"""CREATE VIEW availability AS
-- One row for each variant, as the mirror has it now. The contract; its number is user_version.
SELECT v.variant_id, v.item_id, i.name AS item_name, v.name AS variant_name, v.color, v.size,
       v.value AS availability, v.sellable, v.value IS NULL AS removed,
       v.conflicting_values IS NOT NULL AS verifying, v.changed_at,
       {_CONFIRMED_AT} AS confirmed_at,
       v.source,
       {REASON} AS reason,
       v.cost, v.basic_cost,
       i.release_status AS item_release_status, i.operational_status AS item_operational_status,
       i.countries
FROM variants v LEFT JOIN items i ON i.item_id = v.item_id"""  # noqa: S608 - constants

LISTINGS = f"""CREATE VIEW listings AS
-- One row for each SKU of the shop, as the mirror has its variant now. The contract.
SELECT s.sku, s.title, s.variant_id, v.item_id, i.name AS item_name, v.name AS variant_name,
       v.color, v.size, v.value AS availability, coalesce(v.sellable, 0) AS sellable,
       CASE WHEN v.variant_id IS NULL THEN 'unknown' ELSE
            {REASON} END AS reason,
       v.variant_id IS NOT NULL AND v.value IS NULL AS removed,
       v.conflicting_values IS NOT NULL AS verifying, v.variant_id IS NOT NULL AS known,
       v.changed_at,
       {_CONFIRMED_AT} AS confirmed_at
FROM skus s LEFT JOIN variants v ON v.variant_id = s.variant_id
     LEFT JOIN items i ON i.item_id = v.item_id"""  # noqa: S608 - constants

CHANGES = """CREATE VIEW changes AS
-- One row for each change of availability, sellable or removed, oldest first. The contract.
SELECT seq, variant_id, item_id, old_availability, availability, old_sellable, sellable, cause,
       missed, occurred_at, recorded_at
FROM change_log"""

FRESHNESS = f"""CREATE VIEW freshness AS
-- One row: the last signs of life of the daemon, its deliveries and its sweeps. The contract. A
-- time in the future is NULL: the clock was set back, so the age of the event is unknown.
SELECT ({LAST_DELIVERY_AT}
        WHERE at <= strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+60 seconds')) AS last_delivery_at,
       (SELECT max(ended_at) FROM sweeps
        WHERE is_catalogue = 1 AND result IN ('complete', 'partial')
          AND ended_at <= strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+60 seconds'))
           AS last_sweep_finished_at,
       -- min(confirmed_at) of `availability` WHERE removed = 0, without reading all of it.
       -- The oldest read that is the newest evidence for a variant:
       (WITH read(at) AS (
            SELECT confirmed_at FROM items i WHERE confirmed_at IS NOT NULL AND EXISTS
                (SELECT 1 FROM variants v
                 WHERE v.item_id = i.item_id AND v.confirmed_at <= i.confirmed_at
                   AND v.value IS NOT NULL AND v.conflicting_values IS NULL
                   AND v.missing_since IS NULL)
            ORDER BY confirmed_at LIMIT 1)
        SELECT CASE WHEN min(at) <= strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+60 seconds')
                    THEN min(at) END FROM (
            SELECT at FROM read
            UNION ALL
            -- deliveries since then, for items that were read earlier or never:
            SELECT min(v.confirmed_at) FROM items i CROSS JOIN variants v ON v.item_id = i.item_id
            WHERE i.confirmed_at < coalesce((SELECT at FROM read), '~')
              AND v.value IS NOT NULL AND v.conflicting_values IS NULL AND v.missing_since IS NULL
            UNION ALL
            SELECT min(v.confirmed_at) FROM items i CROSS JOIN variants v ON v.item_id = i.item_id
            WHERE i.confirmed_at IS NULL
              AND v.value IS NOT NULL AND v.conflicting_values IS NULL AND v.missing_since IS NULL
            UNION ALL
            -- variants without evidence by a read of their item:
            SELECT min(confirmed_at) FROM variants WHERE value IS NOT NULL
                AND (conflicting_values IS NOT NULL OR missing_since IS NOT NULL
                     OR item_id IS NULL)))
           AS oldest_confirmed_at,
       coalesce((SELECT value FROM state WHERE key = 'webhooks_state'), 'unknown')
           AS webhooks_state,
       (SELECT value FROM state WHERE key = 'daemon_seen_at'
        AND value <= strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+60 seconds')) AS daemon_seen_at"""  # noqa: S608 - a constant
