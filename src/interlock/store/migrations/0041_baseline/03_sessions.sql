-- Who acts for whom: lineages, their sessions, the sessions handed down, and what the API has answered.

-- What is known of all that one agent does for one user: its posture, its labels and its past outlive any session. Its row is the
-- lock under which its claims are made. Signals from before `risk_from`, when a person lowered the posture, do not count any more.
CREATE TABLE lineage (
    lineage_id       text PRIMARY KEY,
    tenant           text NOT NULL,
    environment      text NOT NULL,
    agent            text NOT NULL,
    user_id          text NOT NULL,
    posture          text NOT NULL DEFAULT 'normal' CHECK (posture IN ('normal', 'guarded', 'read_only', 'halted')),
    tainted          boolean NOT NULL DEFAULT false,
    confidentiality  int NOT NULL DEFAULT 0,
    facts_version    bigint NOT NULL DEFAULT 1,
    posture_by       text NOT NULL DEFAULT '',
    posture_reason   text NOT NULL DEFAULT '',
    risk_from        timestamptz NOT NULL DEFAULT '-infinity',
    history_version  bigint NOT NULL DEFAULT 0,
    tainted_by       text NOT NULL DEFAULT '',
    confidential_by  text NOT NULL DEFAULT ''
) WITH (fillfactor = 70);
COMMENT ON COLUMN lineage.history_version IS 'grows with every claim that the history counts, and with how it ends';
COMMENT ON COLUMN lineage.tainted_by IS 'the call (its id and operation) that was the first to bring untrusted content';
COMMENT ON COLUMN lineage.confidential_by IS 'the call that was the first to bring data as sensitive as the label says';

-- Sessions may be handed down by an agent to another: then they end with those above them, and draw on the same budgets.
-- `parents` are the sessions above, the nearest first; `parent_agents` and `parent_calls` are theirs, in the same order.
CREATE TABLE session (
    session_id     text PRIMARY KEY,
    lineage_id     text NOT NULL REFERENCES lineage,
    tenant         text NOT NULL,
    environment    text NOT NULL,
    agent          text NOT NULL,
    user_id        text NOT NULL,
    task           text NOT NULL,
    roles          text[] NOT NULL,
    attributes     text NOT NULL,
    opened_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at     timestamptz NOT NULL,
    revoked        boolean NOT NULL DEFAULT false,
    parents        text[] NOT NULL DEFAULT '{}',
    parent_agents  text[] NOT NULL DEFAULT '{}',
    parent_calls   int[] NOT NULL DEFAULT '{}',
    run            text NOT NULL DEFAULT '',
    operations     text[],
    max_calls      int NOT NULL DEFAULT 0
);
CREATE INDEX session_by_opening ON session (opened_at DESC);
CREATE INDEX session_by_tenant ON session (tenant, opened_at DESC);
CREATE INDEX session_by_lineage ON session (lineage_id, opened_at DESC);
CREATE INDEX session_by_parents ON session USING gin (parents) WHERE parents <> '{}';
CREATE INDEX session_by_user ON session (environment, tenant, user_id) WHERE NOT revoked;
CREATE INDEX session_by_agent ON session (environment, agent) WHERE NOT revoked;

-- Open a session with its first event; the lineage and the chain are made when they are missing.
CREATE FUNCTION open_session(
    p_session text, p_lineage text, p_tenant text, p_environment text, p_agent text, p_user text, p_task text, p_roles text[],
    p_attributes text, p_expires timestamptz, p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO lineage (lineage_id, tenant, environment, agent, user_id)
    VALUES (p_lineage, p_tenant, p_environment, p_agent, p_user) ON CONFLICT (lineage_id) DO NOTHING;
    PERFORM FROM lineage WHERE lineage_id = p_lineage FOR NO KEY UPDATE;
    INSERT INTO chain (chain_id) VALUES (p_session);
    INSERT INTO session (session_id, lineage_id, tenant, environment, agent, user_id, task, roles, attributes, expires_at)
    VALUES (p_session, p_lineage, p_tenant, p_environment, p_agent, p_user, p_task, p_roles, p_attributes, p_expires);
    PERFORM append_events(ARRAY[p_session], ARRAY[p_kind], ARRAY[''], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
END $$;

-- Let a session go on under a new token; false when it is unknown, revoked or over, and then nothing is changed.
CREATE FUNCTION refresh_session(p_session text, p_expires timestamptz, p_kind text, p_body text, p_salt bytea, p_commitment bytea)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_lineage text;
BEGIN
    SELECT lineage_id INTO v_lineage FROM session WHERE session_id = p_session;
    PERFORM FROM lineage WHERE lineage_id = v_lineage FOR NO KEY UPDATE;
    UPDATE session SET expires_at = p_expires
    WHERE session_id = p_session AND NOT revoked AND expires_at > clock_timestamp();
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM append_events(ARRAY[p_session], ARRAY[p_kind], ARRAY[''], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
    RETURN true;
END $$;

-- Hand a session down. Gives `opened`, `ended` (it, or one above it, is over) or `too_many` (it has as many as it may).
-- What is below inherits the worries of what is above: posture, taint and confidentiality. Locks: epochs, lineages by id, sessions.
CREATE FUNCTION open_sub_session(
    p_session text, p_parent text, p_lineage text, p_agent text, p_roles text[], p_attributes text, p_expires timestamptz,
    p_run text, p_operations text[], p_max_calls int, p_parent_calls int[], p_most int,
    p_kinds text[], p_bodies text[], p_salts bytea[], p_commitments bytea[]
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_parent  session%ROWTYPE;
    v_above   lineage%ROWTYPE;
    v_now     timestamptz;
    v_order   text[] := ARRAY['normal', 'guarded', 'read_only', 'halted'];
BEGIN
    PERFORM FROM epoch WHERE id = 1 FOR SHARE;
    SELECT * INTO v_parent FROM session WHERE session_id = p_parent;
    IF NOT FOUND THEN
        RETURN 'ended';
    END IF;
    INSERT INTO lineage (lineage_id, tenant, environment, agent, user_id)
    VALUES (p_lineage, v_parent.tenant, v_parent.environment, p_agent, v_parent.user_id) ON CONFLICT (lineage_id) DO NOTHING;
    PERFORM FROM lineage l WHERE l.lineage_id IN (p_lineage, v_parent.lineage_id) ORDER BY l.lineage_id FOR NO KEY UPDATE;
    PERFORM FROM session s WHERE s.session_id = ANY (v_parent.parents || p_parent) ORDER BY s.session_id FOR SHARE;
    v_now := clock_timestamp();
    IF EXISTS (SELECT FROM session s WHERE s.session_id = ANY (v_parent.parents || p_parent)
               AND (s.revoked OR s.expires_at <= v_now)) THEN
        RETURN 'ended';
    END IF;
    IF (SELECT count(*) FROM session s WHERE s.parents @> ARRAY[p_parent] AND s.parents <> '{}' AND s.parents[1] = p_parent
        AND NOT s.revoked AND s.expires_at > v_now) >= p_most THEN
        RETURN 'too_many';
    END IF;
    INSERT INTO chain (chain_id) VALUES (p_session);
    INSERT INTO session (session_id, lineage_id, tenant, environment, agent, user_id, task, roles, attributes, expires_at,
                         parents, parent_agents, parent_calls, run, operations, max_calls)
    VALUES (p_session, p_lineage, v_parent.tenant, v_parent.environment, p_agent, v_parent.user_id, v_parent.task, p_roles,
            p_attributes, least(p_expires, v_parent.expires_at), p_parent || v_parent.parents,
            v_parent.agent || v_parent.parent_agents, p_parent_calls, p_run, p_operations, p_max_calls);
    SELECT * INTO STRICT v_above FROM lineage WHERE lineage_id = v_parent.lineage_id;
    UPDATE lineage l SET
        posture = v_order[greatest(array_position(v_order, l.posture), array_position(v_order, v_above.posture))],
        tainted = l.tainted OR v_above.tainted,
        confidentiality = greatest(l.confidentiality, v_above.confidentiality),
        facts_version = l.facts_version + 1
    WHERE l.lineage_id = p_lineage
      AND (array_position(v_order, l.posture) < array_position(v_order, v_above.posture)
           OR v_above.tainted AND NOT l.tainted OR v_above.confidentiality > l.confidentiality);
    PERFORM append_events(ARRAY[p_session, p_parent], p_kinds, ARRAY['', ''], p_bodies, p_salts, p_commitments);
    RETURN 'opened';
END $$;

-- INVARIANT: whoever ends a session, and however, ends all that came of it. Opening one waits for this, and this for it.
CREATE FUNCTION end_handed_down() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE session SET revoked = true WHERE parents @> ARRAY[NEW.session_id] AND parents <> '{}' AND NOT revoked;
    RETURN NULL;
END $$;
CREATE TRIGGER ended_with_its_parent AFTER UPDATE OF revoked ON session
    FOR EACH ROW WHEN (NEW.revoked AND NOT OLD.revoked) EXECUTE FUNCTION end_handed_down();

-- The live sessions of a lineage, by id.
CREATE FUNCTION live_sessions(p_lineage text) RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT coalesce(array_agg(s.session_id ORDER BY s.session_id), '{}') FROM session s
    WHERE s.lineage_id = p_lineage AND NOT s.revoked AND s.expires_at > clock_timestamp()
$$;

-- Append to the chain of a live session; false when it is unknown, revoked or over, and then nothing is changed.
CREATE FUNCTION append_to_session(p_session text, p_kind text, p_call text, p_body text, p_salt bytea, p_commitment bytea)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_lineage text;
BEGIN
    SELECT lineage_id INTO v_lineage FROM session WHERE session_id = p_session;
    PERFORM FROM lineage WHERE lineage_id = v_lineage FOR NO KEY UPDATE;
    PERFORM FROM session WHERE session_id = p_session AND NOT revoked AND expires_at > clock_timestamp();
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM append_events(ARRAY[p_session], ARRAY[p_kind], ARRAY[p_call], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
    RETURN true;
END $$;

-- The first answer to a request that carried an Idempotency-Key; no answer yet, and whether it took effect may be unknown.
CREATE TABLE api_answer (
    tenant       text NOT NULL,
    user_id      text NOT NULL,
    key          text NOT NULL,
    asked        bytea NOT NULL CHECK (length(asked) = 32),
    process_id   text NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at   timestamptz NOT NULL,
    answer       text,
    PRIMARY KEY (tenant, user_id, key)
);
CREATE INDEX api_answer_by_end ON api_answer (expires_at);

-- Take a key for one request. `state` is `begun` (go on), `answered`, `reused` (it belongs to another request), `running`, or
-- `unknown`: it was begun, nobody is working on it any more, and no answer was kept.
CREATE FUNCTION begin_answer(
    p_tenant text, p_user text, p_key text, p_asked bytea, p_process text, p_window_s int, p_longest_s int
) RETURNS TABLE (state text, answer text, process_id text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_now   timestamptz := clock_timestamp();
    v_known api_answer%ROWTYPE;
BEGIN
    DELETE FROM api_answer a USING (
        SELECT o.tenant, o.user_id, o.key FROM api_answer o WHERE o.expires_at < v_now
        ORDER BY o.expires_at LIMIT 100 FOR UPDATE SKIP LOCKED
    ) old WHERE (a.tenant, a.user_id, a.key) = (old.tenant, old.user_id, old.key);
    INSERT INTO api_answer (tenant, user_id, key, asked, process_id, started_at, expires_at)
    VALUES (p_tenant, p_user, p_key, p_asked, p_process, v_now, v_now + p_window_s * interval '1 second')
    ON CONFLICT (tenant, user_id, key) DO NOTHING;
    IF FOUND THEN
        state := 'begun'; process_id := p_process;
        RETURN NEXT; RETURN;
    END IF;
    SELECT * INTO STRICT v_known FROM api_answer a
    WHERE a.tenant = p_tenant AND a.user_id = p_user AND a.key = p_key;
    answer := v_known.answer; process_id := v_known.process_id;
    state := CASE
        WHEN v_known.asked <> p_asked THEN 'reused'
        WHEN v_known.answer IS NOT NULL THEN 'answered'
        WHEN owner_is_alive(v_known.process_id, v_known.started_at + p_longest_s * interval '1 second', v_now) THEN 'running'
        ELSE 'unknown' END;
    RETURN NEXT;
END $$;

-- Refused tokens, counted by minute and reason so that a flood of them cannot fill the disk.
CREATE TABLE auth_refusal (
    minute       timestamptz NOT NULL,
    environment  text NOT NULL,
    code         text NOT NULL,
    hint         text NOT NULL,
    count        bigint NOT NULL,
    PRIMARY KEY (minute, environment, code, hint)
);
