INSERT INTO attempts (job, fence_sequence, fence_epoch, nonce, agent, incarnation, agent_url, claimed_at)
SELECT job, sequence, :fence_epoch::bigint, :nonce::bytea, :agent::bytea, :incarnation::bytea, :agent_url::text, :now::bigint
FROM unnest(:jobs::bytea[], :fence_sequences::bigint[]) AS claimed (job, sequence)
