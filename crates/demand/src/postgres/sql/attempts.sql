SELECT fence_epoch, fence_sequence, agent, incarnation, agent_url, claimed_at, started_at, ended_at, ending, log
FROM attempts WHERE job = :job::bytea ORDER BY fence_sequence DESC LIMIT :limit::bigint
