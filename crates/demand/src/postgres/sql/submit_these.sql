WITH moment AS MATERIALIZED (SELECT store_now() AS now), task AS (
    SELECT * FROM unnest(:ids::bytea[], :namespaces::text[], :client_keys::text[], :digests::bytea[], :sealings::bytea[],
        :names::text[], :specs::text[], :retries::bigint[], :expires_ms::bigint[], :exclusives::boolean[],
        :result_copies::bigint[], :cpu_millis::bigint[], :memory_bytes::bigint[], :gpus::bigint[],
        :scratch_bytes::bigint[], :classes::bigint[], :labels::text[], :priorities::bigint[],
        :states::text[], :inputs::text[])
        AS task (id, namespace, client_key, digest, sealing, name, spec, retries, expires_ms, exclusive,
        result_copies, cpu_millis, memory_bytes, gpus, scratch_bytes, classes, labels, priority,
        state, input)
)
