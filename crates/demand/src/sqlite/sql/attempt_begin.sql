INSERT INTO attempts (job, fence_sequence, fence_epoch, nonce, agent, incarnation, agent_url, claimed_at)
VALUES (:job, :fence_sequence, :fence_epoch, :nonce, :agent, :incarnation, :agent_url, :now)
