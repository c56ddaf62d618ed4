SELECT id, namespace, spec, fence_epoch, fence_sequence, input, checkpoint, checkpoint_before, sealing
FROM jobs
WHERE agent = :agent AND incarnation = :incarnation AND nonce = :nonce
    AND state IN ('assigned', 'preparing', 'running')
ORDER BY id
