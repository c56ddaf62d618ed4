SELECT id, rank, cpu_millis, memory_bytes, gpus, scratch_bytes
FROM jobs
WHERE id = :id AND state = 'queued'
    AND namespace IN (SELECT value FROM json_each(:namespaces))
    AND cpu_millis <= :cpu_millis AND memory_bytes <= :memory_bytes
    AND gpus <= :gpus AND scratch_bytes <= :scratch_bytes
    AND classes & :classes <> 0
    AND (waits_until > :now OR :grace)
    AND (labels IS NULL OR NOT EXISTS (
        SELECT 1 FROM json_each(labels) AS wanted WHERE NOT EXISTS (
            SELECT 1 FROM json_each(:labels) AS had
            WHERE had.key = wanted.key AND had.value = wanted.value)))
