SELECT id FROM jobs
WHERE agent = :agent AND incarnation = :incarnation
    AND state IN ('assigned', 'preparing', 'running') AND exclusive
    AND (:everywhere OR namespace IN (SELECT value FROM json_each(:namespaces)))
ORDER BY id
