SELECT sequence, at, job, namespace, state, fence_epoch, fence_sequence, nonce, agent, reason
FROM events
WHERE sequence > :after
    AND (:everywhere OR namespace IN (SELECT value FROM json_each(:namespaces)))
ORDER BY sequence LIMIT :limit
