SELECT namespace, result_copies, fence_epoch, fence_sequence,
    state IN ('assigned', 'preparing', 'running')
        AND fence_epoch = :fence_epoch AND fence_sequence = :fence_sequence AND nonce = :nonce
        AND agent = :agent
FROM jobs WHERE id = :id
