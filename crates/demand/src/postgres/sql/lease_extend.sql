INSERT INTO leases (agent, incarnation, expires_at, heard_at)
VALUES (:agent::bytea, :incarnation::bytea, :expires_at::bigint, :now::bigint)
ON CONFLICT (agent, incarnation) DO UPDATE
SET expires_at = excluded.expires_at, heard_at = excluded.heard_at
WHERE NOT leases.revoked
