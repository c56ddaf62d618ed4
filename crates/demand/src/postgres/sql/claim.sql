UPDATE jobs
SET state = 'assigned', fence_epoch = :epoch::bigint, fence_sequence = fence_sequence + 1, nonce = :nonce::bytea,
    agent = :agent::bytea, incarnation = :incarnation::bytea, unlisted = 0, checkpoint_wanted = false,
    reason = NULL, changed_at = :now::bigint
WHERE id = ANY(:ids::bytea[]) AND state = 'queued'
RETURNING id, namespace, spec, fence_epoch, fence_sequence, input, checkpoint, checkpoint_before,
    sealing, rank
