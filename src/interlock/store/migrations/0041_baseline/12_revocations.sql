-- Revocations: what was issued before one is refused, and sessions that rest on what may be revoked.

-- What was issued before one is refused, whoever presents it.
CREATE TABLE revocation (
    n            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    environment  text NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('user', 'agent', 'session')),
    tenant       text NOT NULL,
    name         text NOT NULL,
    before_us    bigint NOT NULL,
    by_user      text NOT NULL,
    reason       text NOT NULL
);
CREATE INDEX revocation_by_name ON revocation (environment, kind, name, before_us DESC);
CREATE TRIGGER revocation_is_immutable BEFORE UPDATE OR DELETE ON revocation FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Whether proofs of a user and an agent, issued when they say, were revoked since. An agent is revoked in all tenants at once.
CREATE FUNCTION proofs_revoked(
    p_environment text, p_tenant text, p_user text, p_user_told_us bigint, p_agent text, p_agent_told_us bigint
) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM revocation r WHERE r.environment = p_environment AND r.kind = 'user' AND r.name = p_user
                   AND r.tenant = p_tenant AND r.before_us >= p_user_told_us)
        OR EXISTS (SELECT FROM revocation r WHERE r.environment = p_environment AND r.kind = 'agent' AND r.name = p_agent
                   AND r.before_us >= p_agent_told_us)
$$;

-- Refuse what a user or an agent was issued before now, and end their sessions; or end one session. Waits for the claims that
-- are being made; every later claim sees it. Gives the new epoch, how many sessions ended, and how many of their calls may
-- still take effect. A session's tenant is `p_tenant`, else it is not found (-1).
CREATE FUNCTION revoke(
    p_environment text, p_kind text, p_tenant text, p_name text, p_by text, p_reason text,
    p_event_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS TABLE (epoch bigint, sessions bigint, in_flight bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_epoch bigint;
    v_ended text[];
BEGIN
    LOCK TABLE epoch IN EXCLUSIVE MODE;
    UPDATE epoch e SET revocation = e.revocation + 1 WHERE e.id = 1 RETURNING e.revocation INTO v_epoch;
    WITH ended AS (
        UPDATE session s SET revoked = true
        WHERE s.environment = p_environment AND NOT s.revoked AND s.expires_at > clock_timestamp()
          AND ((p_kind = 'user' AND s.user_id = p_name AND s.tenant = p_tenant)
               OR (p_kind = 'agent' AND s.agent = p_name)
               OR (p_kind = 'session' AND s.session_id = p_name AND s.tenant = p_tenant))
        RETURNING s.session_id
    ) SELECT coalesce(array_agg(session_id), '{}') INTO v_ended FROM ended;
    IF p_kind = 'session' AND v_ended = '{}' THEN
        epoch := v_epoch; sessions := -1; in_flight := 0;
        RETURN NEXT; RETURN;
    END IF;
    INSERT INTO revocation (environment, kind, tenant, name, before_us, by_user, reason)
    VALUES (p_environment, p_kind, p_tenant, p_name, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, p_by, p_reason);
    IF p_kind = 'user' THEN
        -- No token from before gives them a role back; also not that of somebody nobody has told of yet.
        INSERT INTO person AS p (tenant, user_id, roles, told_at_us)
        VALUES (p_tenant, p_name, '{}', (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
        ON CONFLICT (tenant, user_id) DO UPDATE SET roles = excluded.roles, told_at_us = excluded.told_at_us;
        -- INVARIANT: what they approved and nobody has used lifts nothing, not even when a newer token tells of them again.
        PERFORM FROM lineage l WHERE l.lineage_id IN (
            SELECT a.lineage_id FROM approval a WHERE a.environment = p_environment AND a.tenant = p_tenant
            AND a.answered_by = p_name AND a.state = 'approved') ORDER BY l.lineage_id FOR NO KEY UPDATE;
        PERFORM end_approvals(ARRAY(
            SELECT a.approval_id FROM approval a WHERE a.environment = p_environment AND a.tenant = p_tenant
            AND a.answered_by = p_name AND a.state = 'approved'),
            'withdrawn', 'approver_revoked', 'whoever approved it was revoked since', p_by);
    END IF;
    -- A login at the built-in issuer would go on getting new tokens, and what was agreed to and not fetched would begin one.
    UPDATE login l SET ended_at = clock_timestamp(), ended_because = 'revoked'
    WHERE l.environment = p_environment AND l.ended_at IS NULL
      AND ((p_kind = 'user' AND l.user_id = p_name AND l.tenant = p_tenant) OR (p_kind = 'agent' AND l.agent = p_name)
           OR (p_kind = 'session' AND l.session_id = p_name));
    UPDATE login_code c SET state = 'denied'
    WHERE c.environment = p_environment AND c.state = 'approved'
      AND ((p_kind = 'user' AND c.user_id = p_name AND c.tenant = p_tenant) OR (p_kind = 'agent' AND c.agent = p_name));
    PERFORM append_events(ARRAY['control'], ARRAY[p_event_kind], ARRAY[''], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
    PERFORM pg_notify('interlock_revocation', v_epoch::text);
    epoch := v_epoch; sessions := cardinality(v_ended);
    SELECT count(*) INTO in_flight FROM claim c
    WHERE c.state = 'claimed' AND (c.session_id = ANY (v_ended) OR EXISTS (
        SELECT FROM session s WHERE s.session_id = c.session_id AND s.parents <> '{}' AND s.parents && v_ended));
    RETURN NEXT;
END $$;

-- End a session before its time.
CREATE FUNCTION revoke_session(p_session text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE epoch IN EXCLUSIVE MODE;
    UPDATE epoch SET revocation = revocation + 1 WHERE id = 1;
    UPDATE session SET revoked = true WHERE session_id = p_session;
    RETURN FOUND;
END $$;

-- Open a session unless the proofs it rests on were revoked since they were issued; false then, and nothing is opened.
CREATE FUNCTION open_proven_session(
    p_session text, p_lineage text, p_tenant text, p_environment text, p_agent text, p_user text, p_task text, p_roles text[],
    p_attributes text, p_expires timestamptz, p_kind text, p_body text, p_salt bytea, p_commitment bytea,
    p_user_told_us bigint, p_agent_told_us bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM epoch WHERE id = 1 FOR SHARE;
    IF proofs_revoked(p_environment, p_tenant, p_user, p_user_told_us, p_agent, p_agent_told_us) THEN
        RETURN false;
    END IF;
    PERFORM open_session(p_session, p_lineage, p_tenant, p_environment, p_agent, p_user, p_task, p_roles, p_attributes,
                         p_expires, p_kind, p_body, p_salt, p_commitment);
    RETURN true;
END $$;

-- Let a session go on, unless it has ended or the proofs presented for it were revoked since they were issued.
CREATE FUNCTION refresh_proven_session(
    p_session text, p_expires timestamptz, p_kind text, p_body text, p_salt bytea, p_commitment bytea,
    p_user_told_us bigint, p_agent_told_us bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_session session%ROWTYPE;
BEGIN
    PERFORM FROM epoch WHERE id = 1 FOR SHARE;
    SELECT * INTO v_session FROM session WHERE session_id = p_session;
    IF NOT FOUND OR proofs_revoked(v_session.environment, v_session.tenant, v_session.user_id, p_user_told_us,
                                   v_session.agent, p_agent_told_us) THEN
        RETURN false;
    END IF;
    RETURN refresh_session(p_session, p_expires, p_kind, p_body, p_salt, p_commitment);
END $$;

-- Hand a session down, unless the proof of the agent that goes on was revoked since it was issued: `ended` then.
CREATE FUNCTION open_proven_sub_session(
    p_session text, p_parent text, p_lineage text, p_agent text, p_roles text[], p_attributes text, p_expires timestamptz,
    p_run text, p_operations text[], p_max_calls int, p_parent_calls int[], p_most int,
    p_kinds text[], p_bodies text[], p_salts bytea[], p_commitments bytea[], p_environment text, p_agent_told_us bigint
) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM epoch WHERE id = 1 FOR SHARE;
    IF EXISTS (SELECT FROM revocation r WHERE r.environment = p_environment AND r.kind = 'agent' AND r.name = p_agent
               AND r.before_us >= p_agent_told_us) THEN
        RETURN 'ended';
    END IF;
    RETURN open_sub_session(p_session, p_parent, p_lineage, p_agent, p_roles, p_attributes, p_expires, p_run, p_operations,
                            p_max_calls, p_parent_calls, p_most, p_kinds, p_bodies, p_salts, p_commitments);
END $$;

-- Sessions that are found by the grant they rest on.
CREATE TABLE granted_session (
    grant_key   bytea PRIMARY KEY,
    session_id  text NOT NULL REFERENCES session
);

-- The live session of a grant, opened if there is none yet. Its end moves on with the grant's newest token. Nothing comes back
-- when it was revoked, or when it would rest on revoked proofs: a grant that was ended stays ended.
CREATE FUNCTION session_of_grant(
    p_grant bytea, p_session text, p_lineage text, p_tenant text, p_environment text, p_agent text, p_user text, p_task text,
    p_roles text[], p_attributes text, p_expires timestamptz, p_user_told_us bigint, p_agent_told_us bigint,
    p_kinds text[], p_bodies text[], p_salts bytea[], p_commitments bytea[]
) RETURNS TABLE (session_id text, expires_at_us bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_found session%ROWTYPE;
BEGIN
    PERFORM FROM epoch e WHERE e.id = 1 FOR SHARE;
    INSERT INTO lineage (lineage_id, tenant, environment, agent, user_id)
    VALUES (p_lineage, p_tenant, p_environment, p_agent, p_user) ON CONFLICT (lineage_id) DO NOTHING;
    -- Of several processes that meet a grant for the first time, one opens the session and the others find it.
    PERFORM FROM lineage l WHERE l.lineage_id = p_lineage FOR NO KEY UPDATE;
    IF proofs_revoked(p_environment, p_tenant, p_user, p_user_told_us, p_agent, p_agent_told_us) THEN
        RETURN;
    END IF;
    SELECT s.* INTO v_found FROM granted_session g JOIN session s ON s.session_id = g.session_id
    WHERE g.grant_key = p_grant AND s.lineage_id = p_lineage AND s.task = p_task;
    IF FOUND AND v_found.revoked THEN
        RETURN;
    ELSIF FOUND AND v_found.expires_at > clock_timestamp() THEN
        IF v_found.expires_at < p_expires THEN
            PERFORM refresh_session(v_found.session_id, p_expires, p_kinds[2], p_bodies[2], p_salts[2], p_commitments[2]);
        END IF;
        session_id := v_found.session_id;
        expires_at_us := (extract(epoch FROM greatest(v_found.expires_at, p_expires)) * 1000000)::bigint;
        RETURN NEXT; RETURN;
    END IF;
    PERFORM open_session(p_session, p_lineage, p_tenant, p_environment, p_agent, p_user, p_task, p_roles, p_attributes,
                         p_expires, p_kinds[1], p_bodies[1], p_salts[1], p_commitments[1]);
    INSERT INTO granted_session AS g (grant_key, session_id) VALUES (p_grant, p_session)
    ON CONFLICT (grant_key) DO UPDATE SET session_id = excluded.session_id;
    session_id := p_session; expires_at_us := (extract(epoch FROM p_expires) * 1000000)::bigint;
    RETURN NEXT;
END $$;
