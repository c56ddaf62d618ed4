SELECT id, rank, cpu_millis, memory_bytes, gpus, scratch_bytes
FROM jobs
WHERE namespace = :namespace::text AND state = 'queued'
    AND cpu_millis <= :cpu_millis::bigint AND memory_bytes <= :memory_bytes::bigint
    AND gpus <= :gpus::bigint AND scratch_bytes <= :scratch_bytes::bigint
    AND classes & :classes::bigint <> 0
    AND (waits_until > :now::bigint OR :grace::boolean)
    AND (labels IS NULL OR labels <@ :labels::text::jsonb)
ORDER BY rank, id LIMIT :limit::bigint
FOR UPDATE SKIP LOCKED
