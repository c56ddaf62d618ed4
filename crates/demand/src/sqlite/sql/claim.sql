UPDATE jobs
SET state = 'assigned', fence_epoch = :epoch, fence_sequence = fence_sequence + 1, nonce = :nonce,
    agent = :agent, incarnation = :incarnation, unlisted = 0, checkpoint_wanted = 0, reason = NULL,
    changed_at = :now
WHERE id = :id AND state = 'queued'
RETURNING id, namespace, spec, fence_epoch, fence_sequence, input, checkpoint, checkpoint_before,
    sealing
