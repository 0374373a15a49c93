-- What a restored database has lost of stops, postures and revocations is put back from marks, which never loosens anything; and
-- logins from before end with the sessions, for which of them were ended since is not known any more.

CREATE FUNCTION logins_end_with_a_restore() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE login l SET ended_at = clock_timestamp(), ended_because = 'restored' WHERE l.ended_at IS NULL;
    UPDATE login_code c SET state = 'denied' WHERE c.state IN ('waiting', 'approved');
    RETURN NULL;
END $$;
CREATE TRIGGER logins_end_with_a_restore AFTER INSERT ON restoration
    FOR EACH ROW EXECUTE FUNCTION logins_end_with_a_restore();

-- The caller changes something while a restore is open, and holds the epochs.
CREATE FUNCTION while_restored() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE epoch IN EXCLUSIVE MODE;
    IF NOT EXISTS (SELECT FROM restoration r WHERE r.resumed_at IS NULL) THEN
        RAISE EXCEPTION 'nothing is recovered where no restore is open';
    END IF;
END $$;

-- Stop a scope again, or make it as worried again, as it was when the mark was written; false when it is already.
CREATE FUNCTION recover_control(
    p_scope text, p_halted boolean, p_posture text, p_reason text, p_by text, p_posture_reason text, p_posture_by text,
    p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_order text[] := ARRAY['normal', 'guarded', 'read_only', 'halted'];
BEGIN
    PERFORM while_restored();
    IF EXISTS (SELECT FROM control c WHERE c.scope = p_scope AND (c.halted OR NOT p_halted)
               AND array_position(v_order, c.posture) >= array_position(v_order, p_posture)) THEN
        RETURN false;
    END IF;
    PERFORM set_config('interlock.recorded', pg_current_xact_id()::text, true);
    INSERT INTO control AS c (scope, halted, reason, by_user, posture, posture_reason, posture_by)
    VALUES (p_scope, p_halted, p_reason, p_by, p_posture, p_posture_reason, p_posture_by)
    ON CONFLICT (scope) DO UPDATE SET
        halted = c.halted OR excluded.halted,
        reason = CASE WHEN c.halted THEN c.reason ELSE excluded.reason END,
        by_user = CASE WHEN c.halted THEN c.by_user ELSE excluded.by_user END,
        posture = v_order[greatest(array_position(v_order, c.posture), array_position(v_order, excluded.posture))],
        posture_reason = CASE WHEN array_position(v_order, c.posture) >= array_position(v_order, excluded.posture)
                              THEN c.posture_reason ELSE excluded.posture_reason END,
        posture_by = CASE WHEN array_position(v_order, c.posture) >= array_position(v_order, excluded.posture)
                          THEN c.posture_by ELSE excluded.posture_by END;
    PERFORM append_events(ARRAY['control'], ARRAY[p_kind], ARRAY[''], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
    RETURN true;
END $$;

-- Make a lineage as worried again as it was; false when it is already.
CREATE FUNCTION recover_posture(
    p_lineage text, p_tenant text, p_environment text, p_agent text, p_user text, p_posture text, p_reason text, p_by text,
    p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_order text[] := ARRAY['normal', 'guarded', 'read_only', 'halted'];
BEGIN
    PERFORM while_restored();
    INSERT INTO lineage (lineage_id, tenant, environment, agent, user_id)
    VALUES (p_lineage, p_tenant, p_environment, p_agent, p_user) ON CONFLICT DO NOTHING;
    UPDATE lineage l SET posture = p_posture, posture_reason = p_reason, posture_by = p_by, facts_version = facts_version + 1
    WHERE l.lineage_id = p_lineage AND array_position(v_order, l.posture) < array_position(v_order, p_posture);
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM append_events(ARRAY['control'], ARRAY[p_kind], ARRAY[''], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
    RETURN true;
END $$;

-- Refuse again what was issued to a user or an agent before a time; false when it is refused already.
CREATE FUNCTION recover_revocation(
    p_environment text, p_target text, p_tenant text, p_name text, p_before_us bigint, p_by text, p_reason text,
    p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM while_restored();
    IF EXISTS (SELECT FROM revocation r WHERE r.environment = p_environment AND r.kind = p_target AND r.tenant = p_tenant
               AND r.name = p_name AND r.before_us >= p_before_us) THEN
        RETURN false;
    END IF;
    UPDATE epoch SET revocation = revocation + 1 WHERE id = 1;
    INSERT INTO revocation (environment, kind, tenant, name, before_us, by_user, reason)
    VALUES (p_environment, p_target, p_tenant, p_name, p_before_us, p_by, p_reason);
    IF p_target = 'user' THEN
        INSERT INTO person AS p (tenant, user_id, roles, told_at_us) VALUES (p_tenant, p_name, '{}', p_before_us)
        ON CONFLICT (tenant, user_id) DO UPDATE SET roles = excluded.roles, told_at_us = excluded.told_at_us
        WHERE p.told_at_us < excluded.told_at_us;
    END IF;
    PERFORM append_events(ARRAY['control'], ARRAY[p_kind], ARRAY[''], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
    RETURN true;
END $$;

REVOKE EXECUTE ON FUNCTION while_restored, recover_control, recover_posture, recover_revocation FROM PUBLIC;
GRANT EXECUTE ON FUNCTION while_restored, recover_control, recover_posture, recover_revocation TO interlock_app;
