INSERT INTO refresh_requests (item_id, settle_at, requested_at)
SELECT :item_id, strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+60 seconds'),
       strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
WHERE :outcome != 'duplicate'
ON CONFLICT (item_id) DO UPDATE SET requested_at = excluded.requested_at
