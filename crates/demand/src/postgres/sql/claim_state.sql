-- Why a conditional statement changed nothing; the lock keeps the answer true until the commit.
SELECT namespace, result_copies, fence_epoch, fence_sequence,
    coalesce(state IN ('assigned', 'preparing', 'running')
        AND fence_epoch = :fence_epoch::bigint AND fence_sequence = :fence_sequence::bigint AND nonce = :nonce::bytea
        AND agent = :agent::bytea, false)
FROM jobs WHERE id = :id::bytea FOR UPDATE
