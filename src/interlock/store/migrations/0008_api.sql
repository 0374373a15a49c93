-- What the HTTP API needs: answers that are given once, calls found by time, records that belong to no call, known attributes.

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
GRANT SELECT ON api_answer TO interlock_app, interlock_auditor;
GRANT INSERT, UPDATE, DELETE ON api_answer TO interlock_app;

-- Calls are searched newest first.
CREATE INDEX event_by_time ON event (at_us, call_id) WHERE kind = 'call.proposed';
CREATE INDEX session_by_tenant ON session (tenant, opened_at DESC);

-- What the latest token of a person says of them besides their roles.
CREATE TABLE person_attributes (
    tenant      text NOT NULL,
    user_id     text NOT NULL,
    attributes  text NOT NULL,
    told_at_us  bigint NOT NULL,
    PRIMARY KEY (tenant, user_id)
);
GRANT SELECT ON person_attributes TO interlock_app, interlock_auditor;
GRANT INSERT, UPDATE ON person_attributes TO interlock_app;

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

-- Append to a chain that belongs to no session, which is made when it is missing. Never `control`, whose order is the epoch row's.
CREATE FUNCTION append_to_chain(
    p_chain text, p_kind text[], p_call text[], p_body text[], p_salt bytea[], p_commitment bytea[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_chain NOT LIKE '%:%' THEN
        RAISE EXCEPTION 'only chains with a colon in their name are appended to here, not %', p_chain;
    END IF;
    INSERT INTO chain (chain_id) VALUES (p_chain) ON CONFLICT (chain_id) DO NOTHING;
    PERFORM append_events(array_fill(p_chain, ARRAY[cardinality(p_kind)]), p_kind, p_call, p_body, p_salt, p_commitment);
END $$;

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

REVOKE EXECUTE ON FUNCTION begin_answer, append_to_chain, append_to_session FROM PUBLIC;
GRANT EXECUTE ON FUNCTION begin_answer, append_to_chain, append_to_session TO interlock_app;
