INSERT INTO variants (variant_id, item_id, availability, sellable, event_at, delivered_at, changed_at)
SELECT :variant_id, :item_id, :availability,
       lower(trim(:availability)) IN ('available', 'in_stock', 'in stock', 'low_stock'), :event_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
WHERE :outcome = 'applied'
ON CONFLICT (variant_id) DO UPDATE SET
    availability = excluded.availability, sellable = excluded.sellable,
    event_at = excluded.event_at, delivered_at = excluded.delivered_at,
    changed_at = excluded.changed_at
