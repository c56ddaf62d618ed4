DELETE FROM leases
WHERE heard_at < :oldest::bigint AND NOT EXISTS (
    SELECT 1 FROM jobs AS j
    WHERE j.agent = leases.agent AND j.incarnation = leases.incarnation
        AND j.state IN ('assigned', 'preparing', 'running'))
