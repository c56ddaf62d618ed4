-- Gives queued jobs to a holder and begins their attempts. `state || ''` keeps the planner from the index of
-- the whole queue: the ids find their rows.
WITH claimed AS (
    UPDATE jobs
    SET state = 'assigned', fence_epoch = :epoch::bigint, fence_sequence = fence_sequence + 1, nonce = :nonce::bytea,
        agent = :agent::bytea, incarnation = :incarnation::bytea, unlisted = 0, checkpoint_wanted = false,
        reason = NULL, changed_at = :now::bigint
    WHERE id = ANY(:ids::bytea[]) AND state || '' = 'queued'
    RETURNING id, namespace, spec, fence_epoch, fence_sequence, input, checkpoint, checkpoint_before, sealing
), begun AS (
    INSERT INTO attempts (job, fence_sequence, fence_epoch, nonce, agent, incarnation, agent_url, claimed_at)
    SELECT id, fence_sequence, fence_epoch, :nonce::bytea, :agent::bytea, :incarnation::bytea, :agent_url::text, :now::bigint
    FROM claimed
)
SELECT id, namespace, spec, fence_epoch, fence_sequence, input, checkpoint, checkpoint_before, sealing
FROM claimed
