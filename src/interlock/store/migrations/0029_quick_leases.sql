-- Leases are renewed and acknowledged without waiting for the disk; a kill lists what was claimed without reading every claim.

-- Renew the lease of a process that has acted on everything up to `p_known`, and tell it what has happened since. No row: the
-- process is not registered, and gets no lease. The caller counts the lease from before it sent this.
-- INVARIANT: a renewal is wholly before or wholly after any change of a control, for it shares the epoch's row.
-- INVARIANT: what a crash of the database may forget of it makes a kill wait longer, never shorter. That a lease is open, and what
-- another life of the database brings, is on the disk before it is answered. An acknowledgement that is lost is waited for again;
-- `unsent` that is lost is told as what may still take effect; and `renewals` goes on by a stride of chance, so that a number
-- that was seen and then lost does not come again and look as if the lease had stood still.
CREATE OR REPLACE FUNCTION renew_lease(p_process text, p_incarnation text, p_known bigint, p_unsent text[])
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

-- It stands between a kill and its answer while nobody else can claim, and statistics may lag behind a table that grows.
ALTER FUNCTION change_control(text, boolean, text, text, text, text, bytea, bytea) SET enable_seqscan = off;
