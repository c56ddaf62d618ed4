WITH moment AS MATERIALIZED (
    SELECT store_now() AS now, epoch, grace_until FROM store WHERE singleton = 1
), best AS (
    SELECT id FROM jobs, moment
    WHERE namespace = :namespace::text AND state = 'queued'
