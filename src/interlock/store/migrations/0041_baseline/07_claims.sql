-- Claims: each call that is executed has one, and one that is in doubt is looked into until somebody knows what became of it.

-- The right to execute one call, and what became of it.
CREATE TABLE claim (
    claim_id        text PRIMARY KEY,
    call_id         text NOT NULL,
    session_id      text NOT NULL,
    lineage_id      text NOT NULL,
    operation       text NOT NULL,
    call_hash       text NOT NULL,
    release_digest  text NOT NULL,
    scopes          text[] NOT NULL,
    key             bytea,
    process_id      text NOT NULL,
    attempt         int NOT NULL DEFAULT 1,
    state           text NOT NULL DEFAULT 'claimed' CHECK (state IN ('claimed', 'succeeded', 'failed', 'in_doubt')),
    outcome         text,
    claimed_at      timestamptz NOT NULL,
    settle_by       timestamptz NOT NULL,
    settled_at      timestamptz,
    reserved        jsonb,
    holding         jsonb,
    orphaned        boolean NOT NULL DEFAULT false,
    looks           int NOT NULL DEFAULT 0,
    looked_until    timestamptz,
    asks_people     text NOT NULL DEFAULT '',
    conflict        text NOT NULL DEFAULT '',
    tainted         boolean NOT NULL DEFAULT false,
    unsent          boolean NOT NULL DEFAULT false,
    history_n       bigint,
    remembered      text,
    work            text,
    work_n          bigint
) WITH (fillfactor = 80);
COMMENT ON COLUMN claim.reserved IS 'what it took of budgets that hold for a life: [{a: account, h: holder, m: amount, w: window}]';
COMMENT ON COLUMN claim.holding IS 'what it reserved of budgets whose window slides, in the same form';
COMMENT ON COLUMN claim.orphaned IS 'its process was thought dead, so nobody has said that the attempt is over';
COMMENT ON COLUMN claim.looked_until IS 'until when somebody looks into the doubt, or it is left alone';
COMMENT ON COLUMN claim.asks_people IS 'why a person has to say what became of it';
COMMENT ON COLUMN claim.conflict IS 'what a process said about it after it had been settled otherwise';
COMMENT ON COLUMN claim.unsent IS 'it is known that it never reached its tool';
COMMENT ON COLUMN claim.history_n IS 'the history version that its last change made; null when no fact counted it';
COMMENT ON COLUMN claim.remembered IS 'its arguments as the history keeps them: hashes, and numbers that are added up';
COMMENT ON COLUMN claim.work IS 'the lineage that the work came from; null when that is the claim''s own';
COMMENT ON COLUMN claim.work_n IS 'the history version of that lineage that its last change made; null when no fact counted it there';
CREATE INDEX claim_unsettled ON claim (settle_by) WHERE state = 'claimed';
CREATE INDEX claim_by_rate ON claim (lineage_id, operation, claimed_at);
-- Claims come in the order of time: how often operations were used lately is found without reading them all.
CREATE INDEX claim_by_time ON claim USING brin (claimed_at) WITH (autosummarize = on);
CREATE INDEX claim_in_doubt ON claim (settled_at) WHERE state = 'in_doubt';
CREATE INDEX claim_in_conflict ON claim (claimed_at DESC) WHERE conflict <> '';
CREATE INDEX claim_by_history ON claim (lineage_id, history_n) WHERE history_n IS NOT NULL;
CREATE INDEX claim_by_work ON claim (work, operation, claimed_at) WHERE work IS NOT NULL;
CREATE INDEX claim_by_work_history ON claim (work, work_n) WHERE work_n IS NOT NULL;

-- Which claim a key belongs to.
CREATE TABLE idempotency (
    key         bytea PRIMARY KEY,
    claim_id    text NOT NULL,
    call_hash   text NOT NULL,
    source      text NOT NULL,
    expires_at  timestamptz NOT NULL
);
-- Outcomes are kept to answer repeated calls, and no longer: they are what the tool said before anything was taken out.
CREATE INDEX idempotency_by_end ON idempotency (expires_at);

CREATE FUNCTION forget_outcomes(p_limit int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    v_count int;
BEGIN
    WITH over AS (
        DELETE FROM idempotency i USING (
            SELECT k.key FROM idempotency k JOIN claim c USING (claim_id)
            WHERE k.expires_at < clock_timestamp() AND c.state IN ('succeeded', 'failed')
            ORDER BY k.expires_at LIMIT p_limit FOR UPDATE OF k SKIP LOCKED
        ) old WHERE i.key = old.key RETURNING i.claim_id
    )
    UPDATE claim c SET outcome = NULL FROM over WHERE c.claim_id = over.claim_id;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;

-- Whether the process that holds a claim may still settle it.
CREATE FUNCTION owner_is_alive(p_process text, p_settle_by timestamptz, p_now timestamptz) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT p_settle_by > p_now
       AND EXISTS (SELECT FROM process WHERE process_id = p_process AND seen_at > p_now - interval '10 seconds')
$$;

-- Claims whose time is over or whose process is gone: in doubt from now on, with an event each. Never more than p_limit at once;
-- any number of processes may do this side by side, for whoever finds a lineage locked leaves it to the next time.
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

-- A write whose tool asked something before it went on is in doubt until it is known what the tool did before (docs/decisions/0022).
-- With the answers the same claim goes on, as its next attempt. What a new claim is compared with, this one is compared with again;
-- what it reserved of budgets it has already, and it is no second call of a rate.
CREATE FUNCTION go_on(
    p_claim text, p_asked int, p_process text, p_session text, p_lineage text, p_operation text, p_call text, p_call_hash text,
    p_scopes text[], p_control bigint, p_release bigint, p_revocation bigint, p_facts bigint, p_history bigint,
    p_tainted boolean, p_confidentiality int, p_settle_by_ms int, p_approvals text[], p_approved_hash text,
    p_event_call text[], p_kind text[], p_body text[], p_salt bytea[], p_commitment bytea[]
) RETURNS TABLE (
    answer text, claim_id text, call_id text, claim_state text, outcome text, claimed_at_us bigint, settled_at_us bigint,
    owner_alive boolean, scope text, reason text, attempt int, control bigint, release bigint, revocation bigint, release_digest text,
    facts_version bigint, posture text, tainted boolean, confidentiality int,
    history_version bigint, tainted_by text, confidential_by text, history_n bigint
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_epoch   epoch%ROWTYPE;
    v_lineage lineage%ROWTYPE;
    v_claim   claim%ROWTYPE;
    v_now     timestamptz;
BEGIN
    SELECT * INTO STRICT v_epoch FROM epoch WHERE id = 1 FOR SHARE;
    SELECT * INTO v_lineage FROM lineage l WHERE l.lineage_id = p_lineage FOR NO KEY UPDATE;
    SELECT * INTO v_claim FROM claim c
    WHERE c.claim_id = p_claim AND c.lineage_id = p_lineage AND c.operation = p_operation AND c.call_hash = p_call_hash;
    v_now := clock_timestamp();
    SELECT c.scope, c.reason INTO scope, reason FROM control c WHERE c.halted AND c.scope = ANY (p_scopes)
    ORDER BY array_position(p_scopes, c.scope) LIMIT 1;
    claim_id := p_claim; call_id := v_claim.call_id; attempt := v_claim.attempt;
    IF NOT EXISTS (SELECT FROM session s WHERE s.session_id = p_session AND s.lineage_id = p_lineage AND NOT s.revoked
                   AND s.expires_at > v_now) THEN
        answer := 'session_ended';
    ELSIF scope IS NOT NULL THEN
        answer := 'halted';
    ELSIF v_lineage.posture = 'halted' THEN
        answer := 'halted'; scope := 'lineage'; reason := 'the posture of this lineage is halted';
    ELSIF (p_control, p_release, p_revocation) <> (v_epoch.control, v_epoch.release, v_epoch.revocation)
          OR p_facts <> v_lineage.facts_version OR p_history <> v_lineage.history_version THEN
        -- A decision that read no history is not asked which one.
        answer := 'stale';
    ELSIF v_claim.state = 'in_doubt' AND v_claim.asks_people = '' AND v_claim.outcome = '{"awaits":' || p_asked || '}' THEN
        SELECT w.id INTO scope FROM unnest(p_approvals) AS w(id)
        LEFT JOIN approval a ON a.approval_id = w.id AND a.state = 'approved' AND a.expires_at > v_now
            AND a.lineage_id = p_lineage AND a.call_hash = p_approved_hash AND a.release_digest = v_epoch.release_digest
        LEFT JOIN person p ON p.tenant = a.tenant AND p.user_id = a.answered_by
        WHERE a.approval_id IS NULL OR p.roles IS NULL OR NOT a.role = ANY (p.roles) LIMIT 1;
        answer := CASE WHEN FOUND THEN 'approval_gone' ELSE 'claimed' END;
    ELSE
        -- What has become of it meanwhile is told like that of any call that was made before.
        answer := 'duplicate'; claim_state := coalesce(v_claim.state, 'failed'); outcome := v_claim.outcome;
        claimed_at_us := coalesce((extract(epoch FROM v_claim.claimed_at) * 1000000)::bigint, 0);
        settled_at_us := (extract(epoch FROM v_claim.settled_at) * 1000000)::bigint;
        owner_alive := coalesce(owner_is_alive(v_claim.process_id, v_claim.settle_by, v_now), false);
        call_id := coalesce(call_id, p_call);
    END IF;
    IF answer = 'claimed' THEN
        attempt := v_claim.attempt + 1;
        claimed_at_us := (extract(epoch FROM v_now) * 1000000)::bigint;
        UPDATE approval a SET state = 'used', used_by = p_claim, used_at = v_now WHERE a.approval_id = ANY (p_approvals);
        UPDATE claim c
        SET state = 'claimed', attempt = c.attempt + 1, process_id = p_process, orphaned = false, outcome = NULL, settled_at = NULL,
            looks = 0, looked_until = NULL, scopes = p_scopes, release_digest = v_epoch.release_digest,
            tainted = c.tainted OR p_tainted, settle_by = v_now + p_settle_by_ms * interval '1 millisecond'
        WHERE c.claim_id = p_claim;
        -- The worst labels the contract allows are set before anything is read, and never lowered by a machine.
        IF (p_tainted AND NOT v_lineage.tainted) OR p_confidentiality > v_lineage.confidentiality THEN
            UPDATE lineage l
            SET facts_version = l.facts_version + 1, tainted = l.tainted OR p_tainted,
                confidentiality = greatest(l.confidentiality, p_confidentiality),
                tainted_by = CASE WHEN p_tainted AND NOT l.tainted THEN p_call || ' ' || p_operation ELSE l.tainted_by END,
                confidential_by = CASE WHEN p_confidentiality > l.confidentiality THEN p_call || ' ' || p_operation
                                       ELSE l.confidential_by END
            WHERE l.lineage_id = p_lineage RETURNING * INTO v_lineage;
        END IF;
        PERFORM append_events(array_fill(p_session, ARRAY[cardinality(p_kind)]), p_kind, p_event_call, p_body, p_salt, p_commitment);
    END IF;
    control := v_epoch.control; release := v_epoch.release; revocation := v_epoch.revocation;
    release_digest := v_epoch.release_digest;
    facts_version := v_lineage.facts_version; posture := v_lineage.posture; tainted := v_lineage.tainted;
    confidentiality := v_lineage.confidentiality; history_version := v_lineage.history_version;
    tainted_by := v_lineage.tainted_by; confidential_by := v_lineage.confidential_by;
    RETURN NEXT;
END $$;

-- Whether the past of a work is still the one that was read, null for none; it stays so until the transaction ends.
CREATE FUNCTION is_past_of_work(p_lineage text, p_work text, p_version bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF p_version IS NULL THEN
        RETURN true;
    END IF;
    PERFORM FROM epoch WHERE id = 1 FOR SHARE;
    PERFORM FROM lineage l WHERE l.lineage_id IN (p_lineage, p_work) ORDER BY l.lineage_id FOR NO KEY UPDATE;
    RETURN EXISTS (SELECT FROM lineage l WHERE l.lineage_id = p_work AND l.history_version = p_version);
END $$;
