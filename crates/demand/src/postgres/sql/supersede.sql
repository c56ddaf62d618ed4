INSERT INTO superseded (agent, floor) VALUES (:agent::bytea, :floor::bytea)
ON CONFLICT (agent) DO UPDATE SET floor = greatest(superseded.floor, excluded.floor)
