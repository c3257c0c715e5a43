INSERT INTO deliveries (event_id, received_at, event_at, action, variant_id, item_id, outcome, body)
VALUES (:event_id, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), :event_at, :action, :variant_id, :item_id,
        :outcome, :body)
ON CONFLICT DO NOTHING
