UPDATE jobs SET state = :state, unlisted = 0, changed_at = :now
WHERE id = :id AND state IN ('assigned', 'preparing', 'running')
    AND fence_epoch = :fence_epoch AND fence_sequence = :fence_sequence AND nonce = :nonce
