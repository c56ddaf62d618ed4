-- The first layout. Times are unix milliseconds of the store's clock; ids and hashes are blobs;
-- documents are JSON text.
CREATE TABLE store (
    singleton INTEGER PRIMARY KEY CHECK (singleton = 1),
    id BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    epoch_token BLOB NOT NULL,
    epoch_began INTEGER NOT NULL
) STRICT;

CREATE TABLE jobs (
    number INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    namespace TEXT NOT NULL,
    client_key TEXT NOT NULL,
    digest BLOB NOT NULL,
    subject TEXT NOT NULL,
    sealing BLOB NOT NULL,
    name TEXT NOT NULL,
    spec TEXT NOT NULL,
    retries INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    exclusive INTEGER NOT NULL,
    result_copies INTEGER NOT NULL,
    cpu_millis INTEGER NOT NULL,
    memory_bytes INTEGER NOT NULL,
    gpus INTEGER NOT NULL,
    scratch_bytes INTEGER NOT NULL,
    classes INTEGER NOT NULL,
    labels TEXT,
    priority INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    queued_at INTEGER,
    finished_at INTEGER,
    rank INTEGER NOT NULL,
    waits_until INTEGER NOT NULL,
    counted INTEGER NOT NULL DEFAULT 0,
    fence_epoch INTEGER NOT NULL DEFAULT 0,
    fence_sequence INTEGER NOT NULL DEFAULT 0,
    nonce BLOB,
    agent BLOB,
    incarnation BLOB,
    unlisted INTEGER NOT NULL DEFAULT 0,
    checkpoint_wanted INTEGER NOT NULL DEFAULT 0,
    input TEXT,
    checkpoint TEXT,
    checkpoint_before TEXT,
    checkpoint_epoch INTEGER NOT NULL DEFAULT 0,
    checkpoint_fence INTEGER NOT NULL DEFAULT 0,
    checkpoint_sequence INTEGER NOT NULL DEFAULT 0,
    result TEXT,
    repeats INTEGER NOT NULL DEFAULT 0,
    UNIQUE (namespace, client_key)
) STRICT;

CREATE INDEX jobs_queued ON jobs (namespace, rank, id) WHERE state = 'queued';
CREATE INDEX jobs_held ON jobs (agent, incarnation)
    WHERE state IN ('assigned', 'preparing', 'running');
CREATE INDEX jobs_waiting ON jobs (waits_until) WHERE state IN ('queued', 'awaiting_input');

CREATE TABLE attempts (
    job BLOB NOT NULL,
    fence_sequence INTEGER NOT NULL,
    fence_epoch INTEGER NOT NULL,
    nonce BLOB NOT NULL,
    agent BLOB NOT NULL,
    incarnation BLOB NOT NULL,
    agent_url TEXT NOT NULL,
    claimed_at INTEGER NOT NULL,
    started_at INTEGER,
    ended_at INTEGER,
    ending TEXT,
    digest BLOB,
    disposition TEXT,
    reply_state TEXT,
    repeats INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (job, fence_sequence)
) STRICT, WITHOUT ROWID;

CREATE INDEX attempts_nonce ON attempts (nonce);

CREATE TABLE leases (
    agent BLOB NOT NULL,
    incarnation BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    heard_at INTEGER NOT NULL,
    revoked INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (agent, incarnation)
) STRICT, WITHOUT ROWID;

CREATE TABLE superseded (
    agent BLOB PRIMARY KEY,
    floor BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE verdicts (
    nonce BLOB PRIMARY KEY,
    agent BLOB NOT NULL,
    incarnation BLOB NOT NULL,
    voter TEXT NOT NULL,
    verdict TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX verdicts_of ON verdicts (agent, incarnation, at);

CREATE TABLE events (
    sequence INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    job BLOB NOT NULL,
    namespace TEXT NOT NULL,
    state TEXT NOT NULL,
    fence_epoch INTEGER,
    fence_sequence INTEGER,
    nonce BLOB,
    agent BLOB,
    reason TEXT
) STRICT;

-- Events follow the jobs by themselves: no statement can change a state and forget to say so.
CREATE TRIGGER jobs_added AFTER INSERT ON jobs
BEGIN
    INSERT INTO events (at, job, namespace, state)
    VALUES (NEW.changed_at, NEW.id, NEW.namespace, NEW.state);
END;

CREATE TRIGGER jobs_changed AFTER UPDATE OF state ON jobs
WHEN OLD.state <> NEW.state
BEGIN
    INSERT INTO events (at, job, namespace, state, fence_epoch, fence_sequence, nonce, agent, reason)
    SELECT NEW.changed_at, NEW.id, NEW.namespace, NEW.state,
        iif(under_claim, NEW.fence_epoch, NULL), iif(under_claim, NEW.fence_sequence, NULL),
        iif(under_claim, NEW.nonce, NULL), iif(under_claim, NEW.agent, NULL), NEW.reason
    FROM (SELECT OLD.state IN ('assigned', 'preparing', 'running')
        OR NEW.state IN ('assigned', 'preparing', 'running') AS under_claim);
END;
