INSERT INTO leases (agent, incarnation, expires_at, heard_at, revoked)
VALUES (:agent, :incarnation, :now, :now, 1)
ON CONFLICT (agent, incarnation) DO UPDATE SET revoked = 1
