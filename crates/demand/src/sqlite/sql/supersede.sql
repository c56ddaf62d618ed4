INSERT INTO superseded (agent, floor) VALUES (:agent, :floor)
ON CONFLICT (agent) DO UPDATE SET floor = max(floor, excluded.floor)
