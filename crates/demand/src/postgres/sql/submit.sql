INSERT INTO jobs (id, namespace, client_key, digest, subject, sealing, name, spec, retries,
    expires_ms, exclusive, result_copies, cpu_millis, memory_bytes, gpus, scratch_bytes, classes,
    labels, priority, state, created_at, changed_at, queued_at, rank, waits_until, input)
VALUES (:id::bytea, :namespace::text, :client_key::text, :digest::bytea, :subject::text, :sealing::bytea, :name::text, :spec::text, :retries::bigint,
    :expires_ms::bigint, :exclusive::boolean, :result_copies::bigint, :cpu_millis::bigint, :memory_bytes::bigint, :gpus::bigint, :scratch_bytes::bigint,
    :classes::bigint, :labels::text::jsonb, :priority::bigint, :state::text, :now::bigint, :now::bigint, :queued_at::bigint, :rank::bigint,
    :now::bigint + :expires_ms::bigint, :input::text)
ON CONFLICT (namespace, client_key) DO UPDATE SET repeats = jobs.repeats + 1
RETURNING id, state, digest
