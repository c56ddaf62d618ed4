SELECT id, namespace, client_key, subject, sealing, spec, state, reason, created_at, queued_at,
    finished_at, counted, input, checkpoint, checkpoint_before, result
FROM jobs
WHERE id < :before
    AND namespace IN (SELECT value FROM json_each(:namespaces))
    AND (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
    AND (:prefix IS NULL OR substr(name, 1, length(:prefix)) = :prefix)
    AND (:holder IS NULL OR (agent = :holder AND state IN ('assigned', 'preparing', 'running')))
ORDER BY id DESC LIMIT :limit
