-- Nothing expires for one lease from now.
UPDATE store SET grace_until = store_now() + :lease_ms::bigint WHERE singleton = 1 RETURNING grace_until
