SELECT id, fence_epoch, fence_sequence, nonce, state, unlisted, checkpoint_wanted
FROM jobs
WHERE agent = :agent::bytea AND incarnation = :incarnation::bytea
    AND state IN ('assigned', 'preparing', 'running')
