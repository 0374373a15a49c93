-- Leases: a process starts nothing without one, and a kill is answered when every lease has acknowledged it or has run out.

-- Which life of the database this is: another system or timeline may have lost the end of the one before.
CREATE FUNCTION incarnation() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT s.system_identifier || '/' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) FROM pg_control_system() s
$$;

-- `settled` is false until a whole lease has passed in this life, for leases of the one before may still be held.
ALTER TABLE epoch ADD COLUMN incarnation text NOT NULL DEFAULT '', ADD COLUMN settled boolean NOT NULL DEFAULT true;
UPDATE epoch SET incarnation = incarnation();

-- `halted_epoch` is the control epoch at which a scope was last stopped, also when it has been resumed since.
ALTER TABLE control
    ADD COLUMN halted_epoch bigint NOT NULL DEFAULT 0,
    ADD COLUMN posture text NOT NULL DEFAULT 'normal' CHECK (posture IN ('normal', 'guarded', 'read_only', 'halted')),
    ADD COLUMN posture_by text NOT NULL DEFAULT '',
    ADD COLUMN posture_reason text NOT NULL DEFAULT '',
    ALTER COLUMN reason SET DEFAULT '',
    ALTER COLUMN by_user SET DEFAULT '';
UPDATE control SET halted_epoch = (SELECT e.control FROM epoch e WHERE e.id = 1) WHERE halted;

-- No clock of the database decides about a lease: `renewals` counts, and whoever has watched it stand still for longer than a
-- lease on a clock of its own closes it. `unsent` are the claims that the process has stopped before their first byte.
ALTER TABLE process
    ADD COLUMN renewals bigint NOT NULL DEFAULT 0,
    ADD COLUMN lease_open boolean NOT NULL DEFAULT false,
    ADD COLUMN acked_control bigint NOT NULL DEFAULT 0,
    ADD COLUMN unsent text[] NOT NULL DEFAULT '{}';

-- Commit to a body as the ledger's writer does: HMAC-SHA256 (RFC 2104) keyed by 16 bytes of salt.
CREATE FUNCTION commitment_of(p_salt bytea, p_body text) RETURNS bytea LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_inner bytea := decode(repeat('36', 64), 'hex');
    v_outer bytea := decode(repeat('5c', 64), 'hex');
BEGIN
    FOR i IN 0 .. length(p_salt) - 1 LOOP
        v_inner := set_byte(v_inner, i, get_byte(v_inner, i) # get_byte(p_salt, i));
        v_outer := set_byte(v_outer, i, get_byte(v_outer, i) # get_byte(p_salt, i));
    END LOOP;
    RETURN sha256(v_outer || sha256(v_inner || convert_to(p_body, 'UTF8')));
END $$;

-- An event of the control chain that nobody has drafted: what was done by a bare statement. The caller holds the epoch row.
CREATE FUNCTION append_own_control_event(p_kind text, p_body json) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_salt bytea := uuid_send(gen_random_uuid());
BEGIN
    PERFORM append_events(ARRAY['control'], ARRAY[p_kind], ARRAY[''], ARRAY[p_body::text], ARRAY[v_salt],
                          ARRAY[commitment_of(v_salt, p_body::text)]);
END $$;

-- Whoever changes controls, by whatever statement: first the epoch, once a transaction, before any row is touched. The table
-- lock waits its turn among claims; a row lock would wait until by chance no claim shares it.
CREATE FUNCTION control_takes_epoch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(current_setting('interlock.epoch_taken', true), '') <> pg_current_xact_id()::text THEN
        LOCK TABLE epoch IN EXCLUSIVE MODE;
        UPDATE epoch SET control = control + 1 WHERE id = 1;
        PERFORM set_config('interlock.epoch_taken', pg_current_xact_id()::text, true);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER control_takes_epoch BEFORE INSERT OR UPDATE ON control
    FOR EACH STATEMENT EXECUTE FUNCTION control_takes_epoch();

CREATE FUNCTION control_is_stamped() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed_at := clock_timestamp();
    -- INVARIANT: a scope whose posture is halted is halted for claims.
    NEW.halted := NEW.halted OR NEW.posture = 'halted';
    IF NEW.halted THEN
        NEW.halted_epoch := (SELECT control FROM epoch WHERE id = 1);
    END IF;
    IF coalesce(current_setting('interlock.recorded', true), '') <> pg_current_xact_id()::text THEN
        NEW.by_user := 'sql:' || session_user;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER control_is_stamped BEFORE INSERT OR UPDATE ON control FOR EACH ROW EXECUTE FUNCTION control_is_stamped();

CREATE FUNCTION control_is_told() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_epoch    bigint := (SELECT control FROM epoch WHERE id = 1);
    v_recorded boolean := coalesce(current_setting('interlock.recorded', true), '') = pg_current_xact_id()::text;
BEGIN
    IF NOT v_recorded THEN
        PERFORM append_own_control_event('control.changed', json_build_object(
            'kind', 'control.changed', 'scope', NEW.scope, 'halted', NEW.halted, 'reason', NEW.reason, 'by', NEW.by_user));
    END IF;
    -- `whole` is said when this is all that the epoch stands for, so that it can be acted on without asking.
    PERFORM pg_notify('interlock_control', json_build_object(
        'epoch', v_epoch, 'scope', NEW.scope, 'halted', NEW.halted,
        'whole', v_recorded AND NEW.posture = CASE TG_OP WHEN 'INSERT' THEN 'normal' ELSE OLD.posture END)::text);
    RETURN NULL;
END $$;
CREATE TRIGGER control_is_told AFTER INSERT OR UPDATE ON control FOR EACH ROW EXECUTE FUNCTION control_is_told();

-- INVARIANT: that a scope was stopped is not forgotten; it is resumed by setting `halted` to false.
CREATE TRIGGER control_is_not_deleted BEFORE DELETE ON control FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER control_is_not_truncated BEFORE TRUNCATE ON control FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

DROP FUNCTION change_control;
-- Halt or resume a scope; answers with the new epoch and the calls that were claimed before and may still take effect.
CREATE FUNCTION change_control(
    p_scope text, p_halted boolean, p_reason text, p_by text, p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS TABLE (epoch bigint, settled boolean, claim_id text, call_id text, operation text, process_id text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_epoch epoch%ROWTYPE;
BEGIN
    PERFORM set_config('interlock.recorded', pg_current_xact_id()::text, true);
    INSERT INTO control AS c (scope, halted, reason, by_user) VALUES (p_scope, p_halted, p_reason, p_by)
    ON CONFLICT (scope) DO UPDATE SET halted = excluded.halted, reason = excluded.reason, by_user = excluded.by_user;
    PERFORM append_events(ARRAY['control'], ARRAY[p_kind], ARRAY[''], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
    SELECT * INTO STRICT v_epoch FROM epoch e WHERE e.id = 1;
    RETURN QUERY
        SELECT v_epoch.control, v_epoch.settled, c.claim_id, c.call_id, c.operation, c.process_id
        FROM (SELECT 1) one LEFT JOIN claim c ON c.state = 'claimed' AND p_scope = ANY (c.scopes);
END $$;

-- Renew the lease of a process that has acted on everything up to `p_known`, and tell it what has happened since. No row: the
-- process is not registered, and gets no lease. The caller counts the lease from before it sent this.
-- INVARIANT: a renewal is wholly before or wholly after any change of a control, for it shares the epoch's row.
CREATE FUNCTION renew_lease(p_process text, p_incarnation text, p_known bigint, p_unsent text[])
RETURNS TABLE (control bigint, incarnation text, settled boolean, stops jsonb, postures jsonb) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_incarnation text := incarnation();
    v_epoch       epoch%ROWTYPE;
    v_known       bigint := p_known;
BEGIN
    PERFORM FROM epoch e WHERE e.id = 1 AND e.incarnation <> v_incarnation;
    IF FOUND THEN
        -- Further than the lost end of the life before can have counted, so that no number means two things.
        UPDATE epoch e SET control = e.control + 1000000, release = e.release + 1000000, revocation = e.revocation + 1000000,
                           incarnation = v_incarnation, settled = false
        WHERE e.id = 1 AND e.incarnation <> v_incarnation;
        IF FOUND THEN
            PERFORM append_own_control_event('database.changed', json_build_object(
                'kind', 'database.changed', 'incarnation', v_incarnation));
            PERFORM pg_notify('interlock_control', '{}');
        END IF;
    END IF;
    SELECT * INTO STRICT v_epoch FROM epoch e WHERE e.id = 1 FOR SHARE;
    IF p_incarnation <> v_epoch.incarnation THEN
        v_known := 0;  -- what was known is of another life
    END IF;
    UPDATE process p
    SET renewals = p.renewals + 1, lease_open = true, acked_control = v_known, seen_at = clock_timestamp(),
        unsent = CASE WHEN p_unsent = '{}' THEN p.unsent ELSE (p_unsent || p.unsent)[1:2000] END
    WHERE p.process_id = p_process;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT v_epoch.control, v_epoch.incarnation, v_epoch.settled,
        CASE WHEN v_epoch.control <> v_known THEN
            (SELECT jsonb_object_agg(c.scope, c.halted_epoch) FROM control c WHERE c.halted_epoch > v_known) END,
        CASE WHEN v_epoch.control <> v_known THEN
            (SELECT jsonb_object_agg(c.scope, c.posture) FROM control c WHERE c.posture <> 'normal') END;
END $$;

REVOKE EXECUTE ON FUNCTION incarnation, commitment_of, append_own_control_event, control_takes_epoch, control_is_stamped,
    control_is_told, change_control, renew_lease FROM PUBLIC;
GRANT EXECUTE ON FUNCTION incarnation, commitment_of, append_own_control_event, control_takes_epoch, control_is_stamped,
    control_is_told, change_control, renew_lease TO interlock_app;
