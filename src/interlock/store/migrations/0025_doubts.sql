-- Calls in doubt: who looks into them, who is asked, and what contradicts the answer later.

ALTER TABLE claim
    ADD COLUMN orphaned boolean NOT NULL DEFAULT false,
    ADD COLUMN looks int NOT NULL DEFAULT 0,
    ADD COLUMN looked_until timestamptz,
    ADD COLUMN asks_people text NOT NULL DEFAULT '',
    ADD COLUMN conflict text NOT NULL DEFAULT '';
COMMENT ON COLUMN claim.orphaned IS 'its process was thought dead, so nobody has said that the attempt is over';
COMMENT ON COLUMN claim.looked_until IS 'until when somebody looks into the doubt, or it is left alone';
COMMENT ON COLUMN claim.asks_people IS 'why a person has to say what became of it';
COMMENT ON COLUMN claim.conflict IS 'what a process said about it after it had been settled otherwise';
CREATE INDEX claim_in_doubt ON claim (settled_at) WHERE state = 'in_doubt';
CREATE INDEX claim_in_conflict ON claim (claimed_at DESC) WHERE conflict <> '';

-- Claims whose time is over or whose process is gone: in doubt from now on, with an event each. Never more than p_limit at once;
-- any number of processes may do this side by side, for whoever finds a lineage locked leaves it to the next time.
CREATE OR REPLACE FUNCTION orphan_claims(p_limit int, p_kind text, p_body text, p_salt bytea, p_commitment bytea)
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
        PERFORM FROM lineage l WHERE l.lineage_id = v_orphan.lineage_id FOR NO KEY UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        UPDATE claim c SET state = 'in_doubt', settled_at = v_now, orphaned = true
        WHERE c.claim_id = v_orphan.claim_id AND c.state = 'claimed' AND NOT owner_is_alive(c.process_id, c.settle_by, v_now);
        IF FOUND THEN
            PERFORM append_events(ARRAY[v_orphan.session_id], ARRAY[p_kind], ARRAY[v_orphan.call_id], ARRAY[p_body],
                                  ARRAY[p_salt], ARRAY[p_commitment]);
            claim_id := v_orphan.claim_id; call_id := v_orphan.call_id;
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;

-- Take a call in doubt up again, with the next attempt number: from here on only that attempt settles. Null when it may not
-- start: what was decided on has changed, a control stops it, its session is over, or somebody else was quicker.
CREATE FUNCTION attempt_again(
    p_claim text, p_attempt int, p_process text, p_settle_by_ms int, p_control bigint, p_release_digest text,
    p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    v_epoch epoch%ROWTYPE;
    v_claim claim%ROWTYPE;
    v_now   timestamptz;
BEGIN
    SELECT * INTO STRICT v_epoch FROM epoch WHERE id = 1 FOR SHARE;
    SELECT * INTO v_claim FROM claim WHERE claim_id = p_claim;
    PERFORM FROM lineage WHERE lineage_id = v_claim.lineage_id AND posture = 'normal' FOR NO KEY UPDATE;
    IF NOT FOUND OR v_epoch.control <> p_control OR v_epoch.release_digest <> p_release_digest
       OR v_claim.release_digest <> p_release_digest THEN
        RETURN NULL;
    END IF;
    v_now := clock_timestamp();
    PERFORM FROM session s WHERE s.session_id = v_claim.session_id AND NOT s.revoked AND s.expires_at > v_now;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    PERFORM FROM control c WHERE (c.halted OR c.posture <> 'normal') AND c.scope = ANY (v_claim.scopes);
    IF FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE claim c
    SET state = 'claimed', attempt = c.attempt + 1, process_id = p_process, orphaned = false, settled_at = NULL,
        settle_by = v_now + p_settle_by_ms * interval '1 millisecond'
    WHERE c.claim_id = p_claim AND c.attempt = p_attempt AND c.state = 'in_doubt' AND c.asks_people = '';
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    PERFORM append_events(ARRAY[v_claim.session_id], ARRAY[p_kind], ARRAY[v_claim.call_id], ARRAY[p_body], ARRAY[p_salt],
                          ARRAY[p_commitment]);
    RETURN p_attempt + 1;
END $$;

-- Leave a call in doubt to people, with the reason; false when it is not in doubt any more, or left to them already.
CREATE FUNCTION ask_people(
    p_claim text, p_attempt int, p_why text, p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_claim claim%ROWTYPE;
BEGIN
    SELECT * INTO v_claim FROM claim WHERE claim_id = p_claim;
    PERFORM FROM lineage WHERE lineage_id = v_claim.lineage_id FOR NO KEY UPDATE;
    UPDATE claim SET asks_people = p_why
    WHERE claim_id = p_claim AND attempt = p_attempt AND state = 'in_doubt' AND asks_people = '';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM append_events(ARRAY[v_claim.session_id], ARRAY[p_kind], ARRAY[v_claim.call_id], ARRAY[p_body], ARRAY[p_salt],
                          ARRAY[p_commitment]);
    RETURN true;
END $$;

-- Note that a process has said about a claim what contradicts how it was settled. What stands is not changed.
CREATE FUNCTION note_conflict(p_claim text, p_conflict text, p_kind text, p_body text, p_salt bytea, p_commitment bytea)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_claim claim%ROWTYPE;
BEGIN
    SELECT * INTO STRICT v_claim FROM claim WHERE claim_id = p_claim;
    PERFORM FROM lineage WHERE lineage_id = v_claim.lineage_id FOR NO KEY UPDATE;
    UPDATE claim SET conflict = p_conflict WHERE claim_id = p_claim;
    PERFORM append_events(ARRAY[v_claim.session_id], ARRAY[p_kind], ARRAY[v_claim.call_id], ARRAY[p_body], ARRAY[p_salt],
                          ARRAY[p_commitment]);
END $$;

REVOKE EXECUTE ON FUNCTION attempt_again, ask_people, note_conflict FROM PUBLIC;
GRANT EXECUTE ON FUNCTION attempt_again, ask_people, note_conflict TO interlock_app;
