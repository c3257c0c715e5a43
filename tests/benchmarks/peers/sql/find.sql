-- One row: the outcome of a delivery, the newer timestamp wins, and the values before it.
SELECT CASE WHEN v.event_at >= :event_at THEN 'ignored'
            WHEN v.availability = :availability THEN 'unchanged'
            ELSE 'applied' END AS outcome,
       v.availability AS old_availability,
       coalesce(v.sellable, 0) AS old_sellable
FROM (SELECT 1) LEFT JOIN variants v ON v.variant_id = :variant_id
