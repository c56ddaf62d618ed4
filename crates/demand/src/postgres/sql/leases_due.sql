-- The leases before their jobs; one that is being renewed is left for the next sweep.
SELECT agent, incarnation FROM leases AS l
WHERE expires_at <= :now::bigint AND EXISTS (
    SELECT 1 FROM jobs AS j
    WHERE j.agent = l.agent AND j.incarnation = l.incarnation
        AND j.state IN ('assigned', 'preparing', 'running'))
ORDER BY agent, incarnation LIMIT :limit::bigint
FOR UPDATE SKIP LOCKED
