SELECT id FROM jobs
WHERE agent = :agent::bytea AND incarnation = :incarnation::bytea
    AND state IN ('assigned', 'preparing', 'running') AND exclusive
    AND (:everywhere::boolean OR namespace = ANY(:namespaces::text[]))
ORDER BY id
