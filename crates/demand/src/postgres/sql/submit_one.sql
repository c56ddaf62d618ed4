WITH moment AS MATERIALIZED (SELECT store_now() AS now), task AS (
    SELECT
        (:ids::bytea[])[1] AS id, (:namespaces::text[])[1] AS namespace,
        (:client_keys::text[])[1] AS client_key, (:digests::bytea[])[1] AS digest,
        (:sealings::bytea[])[1] AS sealing, (:names::text[])[1] AS name, (:specs::text[])[1] AS spec,
        (:retries::bigint[])[1] AS retries, (:expires_ms::bigint[])[1] AS expires_ms,
        (:exclusives::boolean[])[1] AS exclusive, (:result_copies::bigint[])[1] AS result_copies,
        (:cpu_millis::bigint[])[1] AS cpu_millis, (:memory_bytes::bigint[])[1] AS memory_bytes,
        (:gpus::bigint[])[1] AS gpus, (:scratch_bytes::bigint[])[1] AS scratch_bytes,
        (:classes::bigint[])[1] AS classes, (:labels::text[])[1] AS labels,
        (:priorities::bigint[])[1] AS priority, (:states::text[])[1] AS state, (:inputs::text[])[1] AS input
)
