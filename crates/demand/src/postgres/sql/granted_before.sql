SELECT id, namespace, spec, fence_epoch, fence_sequence, input, checkpoint, checkpoint_before, sealing
FROM jobs
WHERE agent = :agent::bytea AND incarnation = :incarnation::bytea AND nonce = :nonce::bytea
    AND state IN ('assigned', 'preparing', 'running')
ORDER BY id
