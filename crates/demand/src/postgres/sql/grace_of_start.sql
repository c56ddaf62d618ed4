-- Nothing expires for one lease after the database server started.
UPDATE store
SET grace_until = (extract(epoch FROM pg_postmaster_start_time()) * 1000)::bigint + :lease_ms::bigint
WHERE singleton = 1
    AND grace_until < (extract(epoch FROM pg_postmaster_start_time()) * 1000)::bigint + :lease_ms::bigint
    AND epoch_began < (extract(epoch FROM pg_postmaster_start_time()) * 1000)::bigint
