-- Every change of the control plane waits its turn at the table of epochs, as kills do. Before, these held its row: under a load of
-- claims, each of which shares the row, they waited until by chance none did, and a worry or a revocation came late.

-- Set the posture of a lineage, if it is still `p_expected`, and raise those below it that are less worried, which `p_raised` names.
-- Gives `set`; `changed` when either is not so any more; `above` when an agent above it is more worried than it would be.
-- Every decision that read an old posture is made again. Openings and claims hold the epochs, so none comes in between.
CREATE OR REPLACE FUNCTION set_posture(
    p_lineage text, p_expected text, p_to text, p_by text, p_reason text, p_raised text[],
    p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_order  text[] := ARRAY['normal', 'guarded', 'read_only', 'halted'];
    v_to     int := array_position(v_order, p_to);
    v_raised text[] := '{}';
BEGIN
    LOCK TABLE epoch IN EXCLUSIVE MODE;
    IF v_to > array_position(v_order, p_expected) THEN
        SELECT coalesce(array_agg(l.lineage_id ORDER BY l.lineage_id), '{}') INTO v_raised
        FROM lineage l WHERE l.lineage_id = ANY (lineages_below(p_lineage)) AND array_position(v_order, l.posture) < v_to;
    ELSIF EXISTS (
        SELECT FROM session s JOIN session p ON p.session_id = ANY (s.parents) JOIN lineage a ON a.lineage_id = p.lineage_id
        WHERE s.lineage_id = p_lineage AND s.parents <> '{}' AND s.expires_at > clock_timestamp() AND NOT s.revoked
          AND a.lineage_id <> p_lineage AND array_position(v_order, a.posture) > v_to
    ) THEN
        RETURN 'above';
    END IF;
    IF v_raised <> p_raised THEN
        RETURN 'changed';
    END IF;
    UPDATE lineage SET posture = p_to, posture_by = p_by, posture_reason = p_reason, facts_version = facts_version + 1
    WHERE lineage_id = p_lineage AND posture = p_expected;
    IF NOT FOUND THEN
        RETURN 'changed';
    END IF;
    UPDATE lineage SET posture = p_to, posture_by = p_by, posture_reason = 'an agent that it acts for: ' || p_reason,
        facts_version = facts_version + 1
    WHERE lineage_id = ANY (v_raised);
    PERFORM append_events(ARRAY['control'], ARRAY[p_kind], ARRAY[''], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
    RETURN 'set';
END $$;

-- Append to the control chain, in the order of the epoch row's lock.
CREATE OR REPLACE FUNCTION append_control(p_kind text, p_body text, p_salt bytea, p_commitment bytea) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE epoch IN EXCLUSIVE MODE;
    PERFORM append_events(ARRAY['control'], ARRAY[p_kind], ARRAY[''], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
END $$;

-- End a session before its time.
CREATE OR REPLACE FUNCTION revoke_session(p_session text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE epoch IN EXCLUSIVE MODE;
    UPDATE epoch SET revocation = revocation + 1 WHERE id = 1;
    UPDATE session SET revoked = true WHERE session_id = p_session;
    RETURN FOUND;
END $$;

-- Refuse what a user or an agent was issued before now, and end their sessions; or end one session. Waits for the claims that
-- are being made; every later claim sees it. Gives the new epoch, how many sessions ended, and how many of their calls may
-- still take effect. A session's tenant is `p_tenant`, else it is not found (-1).
CREATE OR REPLACE FUNCTION revoke(
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

-- Put a stored release in force, unless another than `p_expected` is by now. Gives the new epoch, or null.
CREATE OR REPLACE FUNCTION activate_release_after(
    p_digest text, p_expected text, p_by text, p_reason text, p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_epoch bigint;
    v_now   text;
BEGIN
    LOCK TABLE epoch IN EXCLUSIVE MODE;
    SELECT release_digest INTO v_now FROM epoch WHERE id = 1;
    IF v_now <> p_expected THEN
        RETURN NULL;
    END IF;
    v_epoch := activate_release(p_digest, p_kind, p_body, p_salt, p_commitment);
    INSERT INTO activation (epoch, digest, activated_by, reason) VALUES (v_epoch, p_digest, p_by, p_reason);
    RETURN v_epoch;
END $$;
