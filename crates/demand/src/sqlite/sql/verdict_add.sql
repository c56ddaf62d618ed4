INSERT INTO verdicts (nonce, agent, incarnation, voter, verdict, at)
VALUES (:nonce, :agent, :incarnation, :voter, :verdict, :now)
