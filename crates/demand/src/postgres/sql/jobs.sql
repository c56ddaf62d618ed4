SELECT id, namespace, client_key, subject, sealing, spec, state, reason, created_at, queued_at,
    finished_at, counted, input, checkpoint, checkpoint_before, result
FROM jobs
WHERE id < :before::bytea
    AND namespace || '' = ANY(:namespaces::text[])
    AND (:states::text[] IS NULL OR state = ANY(:states::text[]))
    AND (:prefix::text IS NULL OR substr(name, 1, length(:prefix::text)) = :prefix::text)
    AND (:holder::bytea IS NULL OR (agent = :holder::bytea AND state IN ('assigned', 'preparing', 'running')))
ORDER BY id DESC LIMIT :limit::bigint
