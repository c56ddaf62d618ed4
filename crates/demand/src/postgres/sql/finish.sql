-- Ends attempts, each only while its claim is in force, and notes what their holders are told. `state || ''`
-- and `namespace || ''` keep the planner from the indexes of whole queues: the ids find their rows.
), ended AS (
    UPDATE jobs AS j
    SET state = CASE
            WHEN a.success THEN 'succeeded'
            WHEN a.retryable AND j.counted < j.retries THEN 'queued'
            ELSE a.failed_state END,
        counted = j.counted + CASE WHEN a.success THEN 0 ELSE 1 END,
        reason = a.reason,
        result = CASE WHEN a.retryable AND j.counted < j.retries THEN j.result ELSE a.result END,
        finished_at = CASE WHEN a.retryable AND j.counted < j.retries THEN NULL ELSE moment.now END,
        waits_until = moment.now + j.expires_ms,
        changed_at = moment.now
    FROM asked AS a, moment
    WHERE j.id = a.id AND j.state || '' IN ('assigned', 'preparing', 'running')
        AND j.fence_epoch = a.fence_epoch AND j.fence_sequence = a.fence_sequence AND j.nonce = a.nonce
        AND j.agent = :agent::bytea
        AND j.namespace || '' = ANY(:namespaces::text[])
        AND a.copies >= j.result_copies
    RETURNING j.id, j.state, a.fence_sequence, a.success, a.digest, a.log
), noted AS (
    UPDATE attempts AS t
    SET ended_at = moment.now,
        ending = CASE WHEN e.success THEN 'succeeded' ELSE 'failed' END,
        digest = e.digest,
        log = e.log,
        disposition = CASE WHEN e.state = 'queued' THEN 'retried' ELSE 'ended' END,
        reply_state = e.state
    FROM ended AS e, moment
    WHERE t.job = e.id AND t.fence_sequence = e.fence_sequence
)
SELECT id, state FROM ended
