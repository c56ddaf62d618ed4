UPDATE jobs
SET checkpoint_before = checkpoint, checkpoint = :checkpoint, checkpoint_epoch = :fence_epoch,
    checkpoint_fence = :fence_sequence, checkpoint_sequence = :sequence, checkpoint_wanted = 0
WHERE id = :id AND state IN ('assigned', 'preparing', 'running')
    AND fence_epoch = :fence_epoch AND fence_sequence = :fence_sequence AND nonce = :nonce
    AND agent = :agent
    AND :copies >= min(result_copies, 1)
    AND (checkpoint_epoch, checkpoint_fence, checkpoint_sequence)
        < (:fence_epoch, :fence_sequence, :sequence)
