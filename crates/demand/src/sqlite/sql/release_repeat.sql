UPDATE attempts SET repeats = repeats + 1
WHERE job = :job AND fence_sequence = :fence_sequence AND fence_epoch = :fence_epoch
    AND nonce = :nonce AND agent = :agent AND ending = 'released'
