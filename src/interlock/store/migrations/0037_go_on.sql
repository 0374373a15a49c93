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

REVOKE EXECUTE ON FUNCTION go_on FROM PUBLIC;
GRANT EXECUTE ON FUNCTION go_on TO interlock_app;
