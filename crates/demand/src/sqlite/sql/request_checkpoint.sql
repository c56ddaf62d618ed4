UPDATE jobs SET checkpoint_wanted = 1
WHERE id = :id AND state IN ('assigned', 'preparing', 'running')
