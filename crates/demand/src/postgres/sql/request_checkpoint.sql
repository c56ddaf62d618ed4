UPDATE jobs SET checkpoint_wanted = true
WHERE id = :id::bytea AND state IN ('assigned', 'preparing', 'running')
