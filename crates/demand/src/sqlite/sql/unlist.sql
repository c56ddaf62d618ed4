UPDATE jobs SET unlisted = unlisted + 1
WHERE id = :id AND state IN ('assigned', 'preparing', 'running')
    AND fence_epoch = :fence_epoch AND fence_sequence = :fence_sequence AND nonce = :nonce
