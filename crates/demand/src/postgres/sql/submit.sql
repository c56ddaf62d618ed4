INSERT INTO jobs (id, namespace, client_key, digest, subject, sealing, name, spec, retries,
    expires_ms, exclusive, result_copies, cpu_millis, memory_bytes, gpus, scratch_bytes, classes,
    labels, priority, state, created_at, changed_at, queued_at, rank, waits_until, input)
SELECT id, namespace, client_key, digest, :subject::text, sealing, name, spec, retries,
    expires_ms, exclusive, result_copies, cpu_millis, memory_bytes, gpus, scratch_bytes, classes,
    labels::jsonb, priority, state, now, now,
    CASE WHEN state = 'queued' THEN now END, now - priority * 60000, now + expires_ms, input
FROM task, moment
ON CONFLICT (namespace, client_key) DO UPDATE SET repeats = jobs.repeats + 1
RETURNING namespace, client_key, id, state, digest
