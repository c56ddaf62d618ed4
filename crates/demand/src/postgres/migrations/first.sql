-- The first layout. Times are unix milliseconds of the store's clock; ids and hashes are bytes;
-- documents are JSON text, which nothing here looks into except labels.
CREATE TABLE store (
    singleton bigint PRIMARY KEY CHECK (singleton = 1),
    id bytea NOT NULL,
    epoch bigint NOT NULL,
    epoch_token bytea NOT NULL,
    epoch_began bigint NOT NULL,
    system_id text NOT NULL,
    timeline text NOT NULL,
    grace_until bigint NOT NULL
);

CREATE TABLE jobs (
    id bytea PRIMARY KEY,
    namespace text NOT NULL,
    client_key text NOT NULL,
    digest bytea NOT NULL,
    subject text NOT NULL,
    sealing bytea NOT NULL,
    name text NOT NULL,
    spec text NOT NULL,
    retries bigint NOT NULL,
    expires_ms bigint NOT NULL,
    exclusive boolean NOT NULL,
    result_copies bigint NOT NULL,
    cpu_millis bigint NOT NULL,
    memory_bytes bigint NOT NULL,
    gpus bigint NOT NULL,
    scratch_bytes bigint NOT NULL,
    classes bigint NOT NULL,
    labels jsonb,
    priority bigint NOT NULL,
    state text NOT NULL,
    reason text,
    created_at bigint NOT NULL,
    changed_at bigint NOT NULL,
    queued_at bigint,
    finished_at bigint,
    rank bigint NOT NULL,
    waits_until bigint NOT NULL,
    counted bigint NOT NULL DEFAULT 0,
    fence_epoch bigint NOT NULL DEFAULT 0,
    fence_sequence bigint NOT NULL DEFAULT 0,
    nonce bytea,
    agent bytea,
    incarnation bytea,
    unlisted bigint NOT NULL DEFAULT 0,
    checkpoint_wanted boolean NOT NULL DEFAULT false,
    input text,
    checkpoint text,
    checkpoint_before text,
    checkpoint_epoch bigint NOT NULL DEFAULT 0,
    checkpoint_fence bigint NOT NULL DEFAULT 0,
    checkpoint_sequence bigint NOT NULL DEFAULT 0,
    result text,
    repeats bigint NOT NULL DEFAULT 0,
    UNIQUE (namespace, client_key)
) WITH (fillfactor = 70);

CREATE INDEX jobs_queued ON jobs (namespace, rank, id) WHERE state = 'queued';
CREATE INDEX jobs_held ON jobs (agent, incarnation)
    WHERE state IN ('assigned', 'preparing', 'running');
CREATE INDEX jobs_waiting ON jobs (waits_until) WHERE state IN ('queued', 'awaiting_input');

CREATE TABLE attempts (
    job bytea NOT NULL,
    fence_sequence bigint NOT NULL,
    fence_epoch bigint NOT NULL,
    nonce bytea NOT NULL,
    agent bytea NOT NULL,
    incarnation bytea NOT NULL,
    agent_url text NOT NULL,
    claimed_at bigint NOT NULL,
    started_at bigint,
    ended_at bigint,
    ending text,
    digest bytea,
    disposition text,
    reply_state text,
    repeats bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (job, fence_sequence)
) WITH (fillfactor = 70);

CREATE INDEX attempts_nonce ON attempts (nonce);

-- Narrow, half empty pages, no index on what changes: every renewal is a heap-only update.
CREATE TABLE leases (
    agent bytea NOT NULL,
    incarnation bytea NOT NULL,
    expires_at bigint NOT NULL,
    heard_at bigint NOT NULL,
    revoked boolean NOT NULL DEFAULT false,
    PRIMARY KEY (agent, incarnation)
) WITH (fillfactor = 50);

CREATE TABLE superseded (
    agent bytea PRIMARY KEY,
    floor bytea NOT NULL
);

CREATE TABLE verdicts (
    nonce bytea PRIMARY KEY,
    agent bytea NOT NULL,
    incarnation bytea NOT NULL,
    voter text NOT NULL,
    verdict text NOT NULL,
    at bigint NOT NULL
);

CREATE INDEX verdicts_of ON verdicts (agent, incarnation, at);

CREATE TABLE events (
    sequence bigint PRIMARY KEY,
    at bigint NOT NULL,
    job bytea NOT NULL,
    namespace text NOT NULL,
    state text NOT NULL,
    fence_epoch bigint,
    fence_sequence bigint,
    nonce bytea,
    agent bytea,
    reason text
);

-- Numbers of changes must grow in the order in which they become visible, or a reader would miss
-- some. A transaction's id does, for those below the oldest running one; the low 20 bits tell the
-- changes of one transaction apart.
CREATE SEQUENCE event_order CACHE 1;

-- The store's clock.
CREATE FUNCTION store_now() RETURNS bigint LANGUAGE sql VOLATILE AS
$$ SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint $$;

-- Events follow the jobs by themselves: no statement can change a state and forget to say so.
CREATE FUNCTION tell_added() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO events (sequence, at, job, namespace, state)
    VALUES ((pg_current_xact_id()::text::bigint << 20) | (nextval('event_order') & 1048575),
        NEW.changed_at, NEW.id, NEW.namespace, NEW.state);
    RETURN NULL;
END $$;

CREATE FUNCTION tell_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    under_claim boolean := OLD.state IN ('assigned', 'preparing', 'running')
        OR NEW.state IN ('assigned', 'preparing', 'running');
BEGIN
    INSERT INTO events (sequence, at, job, namespace, state, fence_epoch, fence_sequence, nonce,
        agent, reason)
    VALUES ((pg_current_xact_id()::text::bigint << 20) | (nextval('event_order') & 1048575),
        NEW.changed_at, NEW.id, NEW.namespace, NEW.state,
        CASE WHEN under_claim THEN NEW.fence_epoch END,
        CASE WHEN under_claim THEN NEW.fence_sequence END,
        CASE WHEN under_claim THEN NEW.nonce END,
        CASE WHEN under_claim THEN NEW.agent END, NEW.reason);
    RETURN NULL;
END $$;

CREATE TRIGGER jobs_added AFTER INSERT ON jobs
    FOR EACH ROW EXECUTE FUNCTION tell_added();
CREATE TRIGGER jobs_changed AFTER UPDATE OF state ON jobs
    FOR EACH ROW WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION tell_changed();
