-- Who answers must hold the role by their own token and by the latest token of theirs that came by.

-- Answer or withdraw a request. Gives `done`, or why not: `unknown`, `requester`, `role`, `expired`, `outdated`, or the state
-- that it is in. An approval that was given and not used may still be withdrawn.
CREATE OR REPLACE FUNCTION answer_approval(
    p_id text, p_to text, p_tenant text, p_user text, p_roles text[], p_note text,
    p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_digest  text;
    v_now     timestamptz;
    v_lineage text;
    v_asked   approval%ROWTYPE;
    v_may     boolean;
BEGIN
    SELECT release_digest INTO v_digest FROM epoch WHERE id = 1 FOR SHARE;
    SELECT lineage_id INTO v_lineage FROM approval WHERE approval_id = p_id;
    PERFORM FROM lineage WHERE lineage_id = v_lineage FOR NO KEY UPDATE;
    SELECT * INTO v_asked FROM approval WHERE approval_id = p_id FOR UPDATE;
    v_now := clock_timestamp();
    IF v_asked.approval_id IS NULL OR v_asked.tenant <> p_tenant THEN
        RETURN 'unknown';
    END IF;
    -- INVARIANT: an older token gives nobody a role back, not even to say no.
    v_may := v_asked.role = ANY (p_roles) AND EXISTS (
        SELECT FROM person p WHERE p.tenant = p_tenant AND p.user_id = p_user AND v_asked.role = ANY (p.roles));
    IF p_to = 'withdrawn' THEN
        IF p_user <> v_asked.user_id AND NOT v_may THEN
            RETURN 'role';
        ELSIF v_asked.state NOT IN ('open', 'approved') THEN
            RETURN v_asked.state;
        END IF;
        UPDATE approval SET state = 'withdrawn', note = p_note, answered_by = p_user, answered_at = v_now
        WHERE approval_id = p_id;
    ELSE
        IF p_user = v_asked.user_id THEN
            RETURN 'requester';
        ELSIF NOT v_may THEN
            RETURN 'role';
        ELSIF v_asked.state <> 'open' THEN
            RETURN v_asked.state;
        ELSIF v_asked.expires_at <= v_now THEN
            UPDATE approval SET state = 'expired' WHERE approval_id = p_id;
            RETURN 'expired';
        ELSIF v_asked.release_digest <> v_digest THEN
            RETURN 'outdated';
        ELSIF NOT EXISTS (SELECT FROM session s WHERE s.session_id = v_asked.session_id AND NOT s.revoked) THEN
            RETURN 'withdrawn';
        END IF;
        UPDATE approval SET state = p_to, note = p_note, answered_by = p_user, answered_at = v_now,
                            expires_at = v_now + holds_s * interval '1 second'
        WHERE approval_id = p_id;
    END IF;
    PERFORM append_events(ARRAY[v_asked.session_id], ARRAY[p_kind], ARRAY[v_asked.call_id], ARRAY[p_body], ARRAY[p_salt],
                          ARRAY[p_commitment]);
    PERFORM pg_notify('interlock_approval', p_id);
    RETURN 'done';
END $$;
