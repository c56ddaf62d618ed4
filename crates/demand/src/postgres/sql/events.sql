-- Only what no running transaction can still come before.
SELECT sequence, at, job, namespace, state, fence_epoch, fence_sequence, nonce, agent, reason
FROM events
WHERE sequence > :after::bigint
    AND sequence < (pg_snapshot_xmin(pg_current_snapshot())::text::bigint << 20)
    AND (:everywhere::boolean OR namespace = ANY(:namespaces::text[]))
ORDER BY sequence LIMIT :limit::bigint
