SELECT id, fence_epoch, fence_sequence, nonce, state, unlisted, checkpoint_wanted
FROM jobs
WHERE agent = :agent AND incarnation = :incarnation
    AND state IN ('assigned', 'preparing', 'running')
