-- A database that was restored to an earlier point: noticed, made good from the marks that were kept outside of it, and resumed by
-- a person (docs/decisions/0018). What was lost of stops, postures and revocations is put back, which never loosens anything.

-- Which database this is. A backup carries it along, so that marks find theirs.
CREATE TABLE database_identity (
    id           int PRIMARY KEY CHECK (id = 1),
    database_id  uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO database_identity (id) VALUES (1);

-- Each time that the database was found to be restored.
CREATE TABLE restoration (
    n              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    noticed_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    why            text NOT NULL,
    reached_us     bigint NOT NULL,
    reconciled_at  timestamptz,
    complete       boolean NOT NULL DEFAULT false,
    recovered      text NOT NULL DEFAULT '{}',
    resumed_at     timestamptz,
    resumed_by     text NOT NULL DEFAULT '',
    guarded_until  timestamptz
);
COMMENT ON COLUMN restoration.reached_us IS 'when its heads were last signed: it holds nothing that is much younger';
COMMENT ON COLUMN restoration.complete IS 'whoever reconciled it says that the marks of all gateways were there';
COMMENT ON COLUMN restoration.guarded_until IS 'until then each write asks a person, for the marks were not complete';

-- Logins from before a restore end with the sessions, for which of them were ended since is not known any more.
CREATE FUNCTION logins_end_with_a_restore() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE login l SET ended_at = clock_timestamp(), ended_because = 'restored' WHERE l.ended_at IS NULL;
    UPDATE login_code c SET state = 'denied' WHERE c.state IN ('waiting', 'approved');
    RETURN NULL;
END $$;
CREATE TRIGGER logins_end_with_a_restore AFTER INSERT ON restoration
    FOR EACH ROW EXECUTE FUNCTION logins_end_with_a_restore();

-- The scope `restored` is one that no person sets; its posture holds for every call there is.
-- Note that this database was restored to an earlier point: from here on only reading is allowed, sessions and approvals of the
-- past are over, and whatever was decided is decided again. `news` is false when it is known already; whoever has learnt of `epoch`
-- knows it too.
CREATE FUNCTION notice_restored(p_why text) RETURNS TABLE (news boolean, epoch bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_reached bigint;
BEGIN
    LOCK TABLE epoch IN EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM restoration r WHERE r.resumed_at IS NULL) THEN
        RETURN QUERY SELECT false, e.control FROM epoch e WHERE e.id = 1;
        RETURN;
    END IF;
    v_reached := coalesce((SELECT (readable_json(h.body) ->> 'at_us')::bigint FROM signed_head h ORDER BY h.n DESC LIMIT 1), 0);
    INSERT INTO restoration (why, reached_us) VALUES (p_why, v_reached);
    -- Further than the lost end can have counted, so that no number means two things.
    UPDATE epoch SET control = control + 1000000, release = release + 1000000, revocation = revocation + 1000000 WHERE id = 1;
    PERFORM set_config('interlock.recorded', pg_current_xact_id()::text, true);
    INSERT INTO control (scope, halted, posture, posture_by, posture_reason)
    VALUES ('restored', false, 'read_only', 'interlock', p_why)
    ON CONFLICT (scope) DO UPDATE
    SET posture = excluded.posture, posture_by = excluded.posture_by, posture_reason = excluded.posture_reason;
    -- What was revoked, withdrawn or used up since is not known any more, so nothing of it holds.
    PERFORM FROM lineage l WHERE l.lineage_id IN (SELECT a.lineage_id FROM approval a WHERE a.state IN ('open', 'approved'))
    ORDER BY l.lineage_id FOR NO KEY UPDATE;
    PERFORM end_approvals(ARRAY(SELECT a.approval_id FROM approval a WHERE a.state IN ('open', 'approved')),
                          'withdrawn', 'restored', '', 'interlock');
    UPDATE session SET revoked = true WHERE NOT revoked AND expires_at > clock_timestamp();
    PERFORM append_own_control_event('database.restored', json_build_object(
        'kind', 'database.restored', 'why', p_why, 'reached_us', v_reached));
    RETURN QUERY SELECT true, e.control FROM epoch e WHERE e.id = 1;
END $$;

-- Put a keyed write that the marks tell of back on record: with its key, so that it is not made again, and in a session of its own
-- that nobody holds a token for, in which it may be looked up for a while. `p_state` null: its end is not known; what is known not
-- to have been done frees its key. Answers `recovered`; `known` or `unsettled` when it is there, with its end or without.
CREATE FUNCTION recover_claim(
    p_claim text, p_call text, p_session text, p_lineage text, p_tenant text, p_environment text, p_agent text, p_user text,
    p_task text, p_roles text[], p_attributes text, p_operation text, p_call_hash text, p_release_digest text, p_scopes text[],
    p_key bytea, p_source text, p_window_s int, p_process text, p_attempt int, p_state text, p_outcome text, p_not_done boolean,
    p_claimed_us bigint, p_look_s int, p_kinds text[], p_bodies text[], p_salts bytea[], p_commitments bytea[]
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_now     timestamptz;
    v_claimed timestamptz := to_timestamp(p_claimed_us::float8 / 1000000);
    v_found   claim%ROWTYPE;
BEGIN
    PERFORM FROM epoch WHERE id = 1 FOR SHARE;
    PERFORM FROM restoration r WHERE r.resumed_at IS NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'nothing is recovered where no restore was noticed';
    END IF;
    INSERT INTO lineage (lineage_id, tenant, environment, agent, user_id)
    VALUES (p_lineage, p_tenant, p_environment, p_agent, p_user) ON CONFLICT DO NOTHING;
    PERFORM FROM lineage WHERE lineage_id = p_lineage FOR NO KEY UPDATE;
    v_now := clock_timestamp();
    SELECT * INTO v_found FROM claim WHERE claim_id = p_claim;
    IF FOUND THEN
        RETURN CASE WHEN v_found.state IN ('claimed', 'in_doubt') THEN 'unsettled' ELSE 'known' END;
    END IF;
    INSERT INTO session (session_id, lineage_id, tenant, environment, agent, user_id, task, roles, attributes, expires_at)
    VALUES (p_session, p_lineage, p_tenant, p_environment, p_agent, p_user, p_task, p_roles, p_attributes,
            v_now + p_look_s * interval '1 second')
    ON CONFLICT DO NOTHING;
    INSERT INTO chain (chain_id) VALUES (p_session) ON CONFLICT DO NOTHING;
    INSERT INTO claim (claim_id, call_id, session_id, lineage_id, operation, call_hash, release_digest, scopes, key, process_id,
                       attempt, state, outcome, claimed_at, settle_by, settled_at, orphaned, unsent)
    VALUES (p_claim, p_call, p_session, p_lineage, p_operation, p_call_hash, p_release_digest, p_scopes, p_key, p_process,
            p_attempt, coalesce(p_state, 'in_doubt'), p_outcome, v_claimed, v_now, v_now, coalesce(p_state, 'in_doubt') = 'in_doubt', p_not_done);
    INSERT INTO idempotency AS i (key, claim_id, call_hash, source, expires_at)
    SELECT p_key, p_claim, p_call_hash, p_source, v_claimed + p_window_s * interval '1 second' WHERE NOT p_not_done
    ON CONFLICT (key) DO UPDATE
    SET claim_id = excluded.claim_id, call_hash = excluded.call_hash, source = excluded.source, expires_at = excluded.expires_at
    WHERE coalesce((SELECT c.claimed_at FROM claim c WHERE c.claim_id = i.claim_id), '-infinity') < v_claimed;
    PERFORM append_events(array_fill(p_session, ARRAY[cardinality(p_kinds)]), p_kinds,
                          array_fill(p_call, ARRAY[cardinality(p_kinds)]), p_bodies, p_salts, p_commitments);
    RETURN 'recovered';
END $$;

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

-- Note that the marks were read, on record; false when no restore is open.
CREATE FUNCTION note_reconciled(
    p_complete boolean, p_recovered text, p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE epoch IN EXCLUSIVE MODE;
    UPDATE restoration SET reconciled_at = clock_timestamp(), complete = p_complete, recovered = p_recovered
    WHERE resumed_at IS NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM append_events(ARRAY['control'], ARRAY[p_kind], ARRAY[''], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
    RETURN true;
END $$;

-- Let writes go on after a restore: all of them, or for a while each with a person's yes. Answers the posture and the new epoch; a
-- null epoch says that it may not be: `none` is open, it is `unreconciled`, or `guarded` until its time.
CREATE FUNCTION resume_restored(
    p_guarded_s int, p_by text, p_reason text, p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS TABLE (stands text, epoch bigint, until_us bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_open restoration%ROWTYPE;
    v_to   text;
BEGIN
    LOCK TABLE epoch IN EXCLUSIVE MODE;
    SELECT * INTO v_open FROM restoration r ORDER BY r.n DESC LIMIT 1;
    IF NOT FOUND OR (v_open.resumed_at IS NOT NULL AND v_open.guarded_until IS NULL) THEN
        RETURN QUERY SELECT 'none', NULL::bigint, NULL::bigint;
        RETURN;
    END IF;
    IF v_open.reconciled_at IS NULL THEN
        RETURN QUERY SELECT 'unreconciled', NULL::bigint, NULL::bigint;
        RETURN;
    END IF;
    IF v_open.resumed_at IS NOT NULL AND v_open.guarded_until > clock_timestamp() THEN
        RETURN QUERY SELECT 'guarded', NULL::bigint, (extract(epoch FROM v_open.guarded_until) * 1000000)::bigint;
        RETURN;
    END IF;
    v_to := CASE WHEN v_open.complete OR v_open.resumed_at IS NOT NULL THEN 'normal' ELSE 'guarded' END;
    UPDATE restoration r
    SET resumed_at = coalesce(r.resumed_at, clock_timestamp()), resumed_by = p_by,
        guarded_until = CASE WHEN v_to = 'guarded' THEN clock_timestamp() + p_guarded_s * interval '1 second' END
    WHERE r.n = v_open.n;
    PERFORM set_config('interlock.recorded', pg_current_xact_id()::text, true);
    UPDATE control SET posture = v_to, posture_by = p_by, posture_reason = p_reason WHERE scope = 'restored';
    PERFORM append_events(ARRAY['control'], ARRAY[p_kind], ARRAY[''], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
    RETURN QUERY SELECT v_to, (SELECT e.control FROM epoch e WHERE e.id = 1),
                        (SELECT (extract(epoch FROM r.guarded_until) * 1000000)::bigint FROM restoration r WHERE r.n = v_open.n);
END $$;
