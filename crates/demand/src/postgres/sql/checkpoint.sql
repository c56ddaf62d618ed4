UPDATE jobs
SET checkpoint_before = checkpoint, checkpoint = :checkpoint::text, checkpoint_epoch = :fence_epoch::bigint,
    checkpoint_fence = :fence_sequence::bigint, checkpoint_sequence = :sequence::bigint, checkpoint_wanted = false
WHERE id = :id::bytea AND state || '' IN ('assigned', 'preparing', 'running')
    AND fence_epoch = :fence_epoch::bigint AND fence_sequence = :fence_sequence::bigint AND nonce = :nonce::bytea
    AND agent = :agent::bytea
    AND namespace = ANY(:namespaces::text[])
    AND :copies::bigint >= least(result_copies, 1)
    AND (checkpoint_epoch, checkpoint_fence, checkpoint_sequence)
        < (:fence_epoch::bigint, :fence_sequence::bigint, :sequence::bigint)
