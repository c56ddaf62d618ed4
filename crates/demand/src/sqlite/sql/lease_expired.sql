SELECT j.id, j.namespace, j.fence_sequence
FROM leases AS l JOIN jobs AS j
    ON j.agent = l.agent AND j.incarnation = l.incarnation
    AND j.state IN ('assigned', 'preparing', 'running')
WHERE l.expires_at <= :now
LIMIT :limit
