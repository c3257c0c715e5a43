INSERT INTO changes (variant_id, item_id, old_availability, availability, old_sellable, sellable,
                     occurred_at, recorded_at)
SELECT :variant_id, :item_id, :old_availability, :availability, :old_sellable,
       lower(trim(:availability)) IN ('available', 'in_stock', 'in stock', 'low_stock'), :event_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
WHERE :outcome = 'applied'
