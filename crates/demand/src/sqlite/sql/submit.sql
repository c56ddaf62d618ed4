INSERT INTO jobs (id, namespace, client_key, digest, subject, sealing, name, spec, retries,
    expires_ms, exclusive, result_copies, cpu_millis, memory_bytes, gpus, scratch_bytes, classes,
    labels, priority, state, created_at, changed_at, queued_at, rank, waits_until, input)
VALUES (:id, :namespace, :client_key, :digest, :subject, :sealing, :name, :spec, :retries,
    :expires_ms, :exclusive, :result_copies, :cpu_millis, :memory_bytes, :gpus, :scratch_bytes,
    :classes, :labels, :priority, :state, :now, :now, :queued_at, :rank, :now + :expires_ms, :input)
