-- The lease before its jobs (DESIGN §3.10).
INSERT INTO leases (agent, incarnation, expires_at, heard_at)
VALUES (:agent::bytea, :incarnation::bytea, :now::bigint, 0)
ON CONFLICT (agent, incarnation) DO UPDATE SET expires_at = leases.expires_at
RETURNING revoked, heard_at
