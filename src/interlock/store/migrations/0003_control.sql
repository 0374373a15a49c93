-- Changes to the control plane itself. Each updates the epoch row first, so it waits for the claims that are being made and
-- every later claim sees it.

-- Halt or resume a scope; answers with the new epoch and the calls that were claimed before and may still take effect.
CREATE FUNCTION change_control(
    p_scope text, p_halted boolean, p_reason text, p_by text, p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS TABLE (epoch bigint, claim_id text, call_id text, operation text, process_id text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_epoch bigint;
BEGIN
    UPDATE epoch e SET control = e.control + 1 WHERE e.id = 1 RETURNING e.control INTO v_epoch;
    INSERT INTO control AS c (scope, halted, reason, by_user) VALUES (p_scope, p_halted, p_reason, p_by)
    ON CONFLICT (scope) DO UPDATE
    SET halted = excluded.halted, reason = excluded.reason, by_user = excluded.by_user, changed_at = clock_timestamp();
    PERFORM append_events(ARRAY['control'], ARRAY[p_kind], ARRAY[''], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
    PERFORM pg_notify('interlock_control', v_epoch::text);
    RETURN QUERY
        SELECT v_epoch, c.claim_id, c.call_id, c.operation, c.process_id
        FROM (SELECT 1) one LEFT JOIN claim c ON c.state = 'claimed' AND p_scope = ANY (c.scopes);
END $$;

-- Put a stored release in force. A digest that is not stored is refused.
CREATE FUNCTION activate_release(p_digest text, p_kind text, p_body text, p_salt bytea, p_commitment bytea)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_epoch bigint;
BEGIN
    PERFORM FROM release WHERE digest = p_digest;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'release % is not stored', p_digest;
    END IF;
    UPDATE epoch SET release = release + 1, release_digest = p_digest WHERE id = 1 RETURNING release INTO v_epoch;
    PERFORM append_events(ARRAY['control'], ARRAY[p_kind], ARRAY[''], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
    PERFORM pg_notify('interlock_release', p_digest);
    RETURN v_epoch;
END $$;

-- End a session before its time.
CREATE FUNCTION revoke_session(p_session text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE epoch SET revocation = revocation + 1 WHERE id = 1;
    UPDATE session SET revoked = true WHERE session_id = p_session;
    RETURN FOUND;
END $$;

-- Append to the control chain, in the order of the epoch row's lock.
CREATE FUNCTION append_control(p_kind text, p_body text, p_salt bytea, p_commitment bytea) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM epoch WHERE id = 1 FOR NO KEY UPDATE;
    PERFORM append_events(ARRAY['control'], ARRAY[p_kind], ARRAY[''], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
END $$;

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

-- Claims whose time is over or whose process is gone: in doubt from now on, with an event each. Never more than p_limit at once.
CREATE FUNCTION orphan_claims(p_limit int, p_kind text, p_body text, p_salt bytea, p_commitment bytea)
RETURNS TABLE (claim_id text, call_id text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_now    timestamptz := clock_timestamp();
    v_orphan record;
BEGIN
    FOR v_orphan IN
        SELECT c.claim_id, c.call_id, c.session_id, c.lineage_id FROM claim c
        WHERE c.state = 'claimed' AND NOT owner_is_alive(c.process_id, c.settle_by, v_now)
        ORDER BY c.lineage_id, c.claim_id LIMIT p_limit
    LOOP
        PERFORM FROM lineage l WHERE l.lineage_id = v_orphan.lineage_id FOR NO KEY UPDATE;
        UPDATE claim c SET state = 'in_doubt', settled_at = v_now
        WHERE c.claim_id = v_orphan.claim_id AND c.state = 'claimed';
        IF FOUND THEN
            PERFORM append_events(ARRAY[v_orphan.session_id], ARRAY[p_kind], ARRAY[v_orphan.call_id], ARRAY[p_body],
                                  ARRAY[p_salt], ARRAY[p_commitment]);
            claim_id := v_orphan.claim_id; call_id := v_orphan.call_id;
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;
