SELECT id, rank, cpu_millis, memory_bytes, gpus, scratch_bytes
FROM jobs
WHERE id = ANY(:ids::bytea[]) AND state || '' = 'queued'
    AND namespace || '' = ANY(:namespaces::text[])
    AND cpu_millis <= :cpu_millis::bigint AND memory_bytes <= :memory_bytes::bigint
    AND gpus <= :gpus::bigint AND scratch_bytes <= :scratch_bytes::bigint
    AND classes & :classes::bigint <> 0
    AND (waits_until > :now::bigint OR :grace::boolean)
    AND (labels IS NULL OR labels <@ :labels::text::jsonb)
ORDER BY rank, id
FOR UPDATE SKIP LOCKED
