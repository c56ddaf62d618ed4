SELECT least(
    (SELECT min(waits_until) FROM jobs WHERE state IN ('queued', 'awaiting_input')),
    (SELECT min(l.expires_at) FROM leases AS l WHERE EXISTS (
        SELECT 1 FROM jobs AS j
        WHERE j.agent = l.agent AND j.incarnation = l.incarnation
            AND j.state IN ('assigned', 'preparing', 'running'))))
