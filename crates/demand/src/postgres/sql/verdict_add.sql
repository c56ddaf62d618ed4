INSERT INTO verdicts (nonce, agent, incarnation, voter, verdict, at)
VALUES (:nonce::bytea, :agent::bytea, :incarnation::bytea, :voter::text, :verdict::text, :now::bigint)
ON CONFLICT (nonce) DO NOTHING
