UPDATE leases SET revoked = true, heard_at = greatest(heard_at, :now::bigint)
WHERE agent = :agent::bytea AND incarnation = :incarnation::bytea
