-- Whoever holds something may not have been able to say so while no server was up.
UPDATE store SET grace_until = store_now() + :lease_ms::bigint
WHERE singleton = 1 AND EXISTS (SELECT 1 FROM leases)
