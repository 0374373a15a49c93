-- The control plane: the epochs, stops and postures of scopes, and the leases of the gateways.
--
-- Every change here waits its turn at the table of epochs: it waits for the claims that are being made, and every later claim sees
-- it. A mere lock of the row, which each claim shares, would wait until by chance no claim holds it.

-- Which life of the database this is: another system or timeline may have lost the end of the one before.
CREATE FUNCTION incarnation() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT s.system_identifier || '/' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) FROM pg_control_system() s
$$;

-- One row that every claim reads FOR SHARE and every control change updates (docs/decisions/0001).
-- `incarnation` is the life of the database that the numbers count in. `settled` is false until a whole lease has passed in this
-- life, for leases of the one before may still be held.
CREATE TABLE epoch (
    id              int PRIMARY KEY CHECK (id = 1),
    control         bigint NOT NULL DEFAULT 0,
    release         bigint NOT NULL DEFAULT 0,
    revocation      bigint NOT NULL DEFAULT 0,
    release_digest  text NOT NULL DEFAULT '',
    incarnation     text NOT NULL DEFAULT '',
    settled         boolean NOT NULL DEFAULT true
);
INSERT INTO epoch (id, incarnation) VALUES (1, incarnation());

-- What people and machines have stopped or made worried, by scope. `halted_epoch` is the control epoch at which a scope was last
-- stopped, also when it has been resumed since.
CREATE TABLE control (
    scope           text PRIMARY KEY,
    halted          boolean NOT NULL,
    reason          text NOT NULL DEFAULT '',
    by_user         text NOT NULL DEFAULT '',
    changed_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    halted_epoch    bigint NOT NULL DEFAULT 0,
    posture         text NOT NULL DEFAULT 'normal' CHECK (posture IN ('normal', 'guarded', 'read_only', 'halted')),
    posture_by      text NOT NULL DEFAULT '',
    posture_reason  text NOT NULL DEFAULT ''
);

-- Append to the control chain, in the order of the epoch row's lock.
CREATE FUNCTION append_control(p_kind text, p_body text, p_salt bytea, p_commitment bytea) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE epoch IN EXCLUSIVE MODE;
    PERFORM append_events(ARRAY['control'], ARRAY[p_kind], ARRAY[''], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
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

-- Halt or resume a scope; answers with the new epoch and the calls that were claimed before and may still take effect.
-- It stands between a kill and its answer while nobody else can claim, and statistics may lag behind a table that grows.
CREATE FUNCTION change_control(
    p_scope text, p_halted boolean, p_reason text, p_by text, p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS TABLE (epoch bigint, settled boolean, claim_id text, call_id text, operation text, process_id text)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
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

-- Set the posture of a scope, if it is still `p_expected`. Gives the new control epoch, or null.
CREATE FUNCTION set_scope_posture(
    p_scope text, p_expected text, p_to text, p_by text, p_reason text,
    p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE epoch IN EXCLUSIVE MODE;
    IF coalesce((SELECT posture FROM control WHERE scope = p_scope), 'normal') <> p_expected THEN
        RETURN NULL;
    END IF;
    PERFORM set_config('interlock.recorded', pg_current_xact_id()::text, true);
    INSERT INTO control (scope, halted, posture, posture_by, posture_reason) VALUES (p_scope, false, p_to, p_by, p_reason)
    ON CONFLICT (scope) DO UPDATE
    SET posture = excluded.posture, posture_by = excluded.posture_by, posture_reason = excluded.posture_reason;
    PERFORM append_events(ARRAY['control'], ARRAY[p_kind], ARRAY[''], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
    RETURN (SELECT control FROM epoch WHERE id = 1);
END $$;

-- The gateways and their leases: a process starts nothing without one, and a kill is answered when every lease has acknowledged it
-- or has run out. No clock of the database decides about a lease: `renewals` counts, and whoever has watched it stand still for
-- longer than a lease on a clock of its own closes it. `unsent` are the claims that the process has stopped before their first byte.
CREATE TABLE process (
    process_id     text PRIMARY KEY,
    environment    text NOT NULL,
    started_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    release_epoch  bigint NOT NULL DEFAULT 0,
    renewals       bigint NOT NULL DEFAULT 0,
    lease_open     boolean NOT NULL DEFAULT false,
    acked_control  bigint NOT NULL DEFAULT 0,
    unsent         text[] NOT NULL DEFAULT '{}'
);

-- Renew the lease of a process that has acted on everything up to `p_known`, and tell it what has happened since. No row: the
-- process is not registered, and gets no lease. The caller counts the lease from before it sent this.
-- INVARIANT: a renewal is wholly before or wholly after any change of a control, for it shares the epoch's row.
-- INVARIANT: what a crash of the database may forget of it makes a kill wait longer, never shorter. That a lease is open, and what
-- another life of the database brings, is on the disk before it is answered. An acknowledgement that is lost is waited for again;
-- `unsent` that is lost is told as what may still take effect; and `renewals` goes on by a stride of chance, so that a number
-- that was seen and then lost does not come again and look as if the lease had stood still.
CREATE FUNCTION renew_lease(p_process text, p_incarnation text, p_known bigint, p_unsent text[])
RETURNS TABLE (control bigint, incarnation text, settled boolean, stops jsonb, postures jsonb) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_incarnation text := incarnation();
    v_epoch       epoch%ROWTYPE;
    v_known       bigint := p_known;
    v_new_life    boolean := false;
    v_open        boolean;
BEGIN
    PERFORM FROM epoch e WHERE e.id = 1 AND e.incarnation <> v_incarnation;
    IF FOUND THEN
        -- Further than the lost end of the life before can have counted, so that no number means two things.
        UPDATE epoch e SET control = e.control + 1000000, release = e.release + 1000000, revocation = e.revocation + 1000000,
                           incarnation = v_incarnation, settled = false
        WHERE e.id = 1 AND e.incarnation <> v_incarnation;
        IF FOUND THEN
            v_new_life := true;
            PERFORM append_own_control_event('database.changed', json_build_object(
                'kind', 'database.changed', 'incarnation', v_incarnation));
            PERFORM pg_notify('interlock_control', '{}');
        END IF;
    END IF;
    SELECT * INTO STRICT v_epoch FROM epoch e WHERE e.id = 1 FOR SHARE;
    IF p_incarnation <> v_epoch.incarnation THEN
        v_known := 0;  -- what was known is of another life
    END IF;
    SELECT p.lease_open INTO v_open FROM process p WHERE p.process_id = p_process FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF v_open AND NOT v_new_life THEN
        SET LOCAL synchronous_commit = off;
    END IF;
    UPDATE process p
    SET renewals = p.renewals + 1 + floor(random() * 1000000000)::bigint, lease_open = true, acked_control = v_known,
        seen_at = clock_timestamp(), unsent = CASE WHEN p_unsent = '{}' THEN p.unsent ELSE (p_unsent || p.unsent)[1:2000] END
    WHERE p.process_id = p_process;
    RETURN QUERY SELECT v_epoch.control, v_epoch.incarnation, v_epoch.settled,
        CASE WHEN v_epoch.control <> v_known THEN
            (SELECT jsonb_object_agg(c.scope, c.halted_epoch) FROM control c WHERE c.halted_epoch > v_known) END,
        CASE WHEN v_epoch.control <> v_known THEN
            (SELECT jsonb_object_agg(c.scope, c.posture) FROM control c WHERE c.posture <> 'normal') END;
END $$;
