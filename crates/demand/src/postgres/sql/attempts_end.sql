UPDATE attempts AS a SET ended_at = :now::bigint, ending = :ending::text
FROM unnest(:jobs::bytea[], :fence_sequences::bigint[]) AS ended (job, sequence)
WHERE a.job = ended.job AND a.fence_sequence = ended.sequence AND a.ending IS NULL
