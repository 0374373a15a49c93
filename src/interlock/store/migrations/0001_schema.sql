-- The tables. Times that are hashed are bigints (microseconds since the epoch); all others are timestamptz.

-- One row that every claim reads FOR SHARE and every control change updates (docs/decisions/0001).
CREATE TABLE epoch (
    id              int PRIMARY KEY CHECK (id = 1),
    control         bigint NOT NULL DEFAULT 0,
    release         bigint NOT NULL DEFAULT 0,
    revocation      bigint NOT NULL DEFAULT 0,
    release_digest  text NOT NULL DEFAULT ''
);
INSERT INTO epoch (id) VALUES (1);

CREATE TABLE control (
    scope       text PRIMARY KEY,
    halted      boolean NOT NULL,
    reason      text NOT NULL,
    by_user     text NOT NULL,
    changed_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE lineage (
    lineage_id       text PRIMARY KEY,
    tenant           text NOT NULL,
    environment      text NOT NULL,
    agent            text NOT NULL,
    user_id          text NOT NULL,
    posture          text NOT NULL DEFAULT 'normal' CHECK (posture IN ('normal', 'guarded', 'read_only', 'halted')),
    tainted          boolean NOT NULL DEFAULT false,
    confidentiality  int NOT NULL DEFAULT 0,
    facts_version    bigint NOT NULL DEFAULT 1
) WITH (fillfactor = 70);

CREATE TABLE chain (
    chain_id   text PRIMARY KEY,
    head_seq   bigint NOT NULL DEFAULT 0,
    head_link  bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex')
) WITH (fillfactor = 50);
INSERT INTO chain (chain_id) VALUES ('control');

CREATE TABLE session (
    session_id   text PRIMARY KEY,
    lineage_id   text NOT NULL REFERENCES lineage,
    tenant       text NOT NULL,
    environment  text NOT NULL,
    agent        text NOT NULL,
    user_id      text NOT NULL,
    task         text NOT NULL,
    roles        text[] NOT NULL,
    attributes   text NOT NULL,
    opened_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at   timestamptz NOT NULL,
    revoked      boolean NOT NULL DEFAULT false
);
CREATE INDEX session_by_opening ON session (opened_at DESC);

CREATE TABLE event (
    chain_id    text NOT NULL,
    seq         bigint NOT NULL,
    kind        text NOT NULL,
    at_us       bigint NOT NULL,
    call_id     text NOT NULL,
    commitment  bytea NOT NULL CHECK (length(commitment) = 32),
    link        bytea NOT NULL CHECK (length(link) = 32),
    PRIMARY KEY (chain_id, seq)
);
CREATE INDEX event_by_call ON event (call_id) WHERE call_id <> '';

-- Bodies stand apart, so that one may be forgotten without breaking the chain.
CREATE TABLE event_body (
    chain_id  text NOT NULL,
    seq       bigint NOT NULL,
    salt      bytea NOT NULL,
    body      text NOT NULL,
    PRIMARY KEY (chain_id, seq)
);

CREATE TABLE signed_head (
    n          bigint PRIMARY KEY,
    body       text NOT NULL,
    key_id     text NOT NULL,
    signature  bytea NOT NULL
);

-- How far each chain has been signed; only a reminder of where to go on, believed by nobody.
CREATE TABLE signed_chain (
    chain_id  text PRIMARY KEY,
    seq       bigint NOT NULL
);

CREATE TABLE process (
    process_id     text PRIMARY KEY,
    environment    text NOT NULL,
    started_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    release_epoch  bigint NOT NULL DEFAULT 0
);

CREATE TABLE claim (
    claim_id        text PRIMARY KEY,
    call_id         text NOT NULL,
    session_id      text NOT NULL,
    lineage_id      text NOT NULL,
    operation       text NOT NULL,
    call_hash       text NOT NULL,
    release_digest  text NOT NULL,
    scopes          text[] NOT NULL,
    key             bytea,
    process_id      text NOT NULL,
    attempt         int NOT NULL DEFAULT 1,
    state           text NOT NULL DEFAULT 'claimed' CHECK (state IN ('claimed', 'succeeded', 'failed', 'in_doubt')),
    outcome         text,
    claimed_at      timestamptz NOT NULL,
    settle_by       timestamptz NOT NULL,
    settled_at      timestamptz
) WITH (fillfactor = 80);
CREATE INDEX claim_unsettled ON claim (settle_by) WHERE state = 'claimed';
CREATE INDEX claim_by_rate ON claim (lineage_id, operation, claimed_at);

CREATE TABLE idempotency (
    key         bytea PRIMARY KEY,
    claim_id    text NOT NULL,
    call_hash   text NOT NULL,
    source      text NOT NULL,
    expires_at  timestamptz NOT NULL
);

CREATE TABLE release (
    digest    text PRIMARY KEY,
    name      text NOT NULL,
    files     text NOT NULL,
    saved_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Refused tokens, counted by minute and reason so that a flood of them cannot fill the disk.
CREATE TABLE auth_refusal (
    minute       timestamptz NOT NULL,
    environment  text NOT NULL,
    code         text NOT NULL,
    hint         text NOT NULL,
    count        bigint NOT NULL,
    PRIMARY KEY (minute, environment, code, hint)
);

-- INVARIANT: events are never edited, whoever asks.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only: % on % is refused', TG_OP, TG_TABLE_NAME;
END $$;
CREATE TRIGGER event_is_append_only BEFORE UPDATE OR DELETE ON event FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER event_is_not_truncated BEFORE TRUNCATE ON event FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER event_body_is_not_edited BEFORE UPDATE ON event_body FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER event_body_is_not_truncated BEFORE TRUNCATE ON event_body FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER signed_head_is_append_only BEFORE UPDATE OR DELETE ON signed_head FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER release_is_immutable BEFORE UPDATE OR DELETE ON release FOR EACH ROW EXECUTE FUNCTION refuse_change();
