-- People, and what they approve. Each end of an approval is on record in the chain of its session.

-- People, as their latest token told of them.
CREATE TABLE person (
    tenant        text NOT NULL,
    user_id       text NOT NULL,
    roles         text[] NOT NULL,
    told_at_us    bigint NOT NULL,
    PRIMARY KEY (tenant, user_id)
);

-- What a person's token says of them; an older token changes nothing that a newer one has said.
CREATE FUNCTION tell_person(p_tenant text, p_user text, p_roles text[], p_told_at_us bigint) RETURNS void LANGUAGE sql AS $$
    INSERT INTO person AS p (tenant, user_id, roles, told_at_us) VALUES (p_tenant, p_user, p_roles, p_told_at_us)
    ON CONFLICT (tenant, user_id) DO UPDATE SET roles = excluded.roles, told_at_us = excluded.told_at_us
    WHERE excluded.told_at_us >= p.told_at_us AND (p.roles, p.told_at_us) <> (excluded.roles, excluded.told_at_us)
$$;

-- What people are asked to approve, and what they answered. An approval is bound to the call, the release and what was shown.
CREATE TABLE approval (
    approval_id     text PRIMARY KEY,
    tenant          text NOT NULL,
    environment     text NOT NULL,
    agent           text NOT NULL,
    user_id         text NOT NULL,
    lineage_id      text NOT NULL REFERENCES lineage,
    session_id      text NOT NULL,
    call_id         text NOT NULL,
    task            text NOT NULL,
    operation       text NOT NULL,
    call_hash       text NOT NULL,
    release_digest  text NOT NULL,
    rule            text NOT NULL,
    role            text NOT NULL,
    policy_ids      text[] NOT NULL,
    arguments       text NOT NULL,
    show            text[] NOT NULL,
    evidence        text NOT NULL,
    say             text NOT NULL,
    state           text NOT NULL DEFAULT 'open'
                    CHECK (state IN ('open', 'approved', 'denied', 'withdrawn', 'expired', 'outdated', 'used')),
    holds_s         int NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at      timestamptz NOT NULL,
    answered_by     text NOT NULL DEFAULT '',
    answered_at     timestamptz,
    note            text NOT NULL DEFAULT '',
    used_by         text NOT NULL DEFAULT '',
    used_at         timestamptz,
    evidence_digest text NOT NULL DEFAULT ''
) WITH (fillfactor = 80);
COMMENT ON COLUMN approval.evidence_digest IS 'digest of the object as it was shown; empty when the operation has none';
-- INVARIANT: for one call of one lineage under one release there is at most one request that is open, a rule.
CREATE UNIQUE INDEX approval_open ON approval (lineage_id, call_hash, release_digest, rule) WHERE state = 'open';
CREATE INDEX approval_by_call ON approval (lineage_id, call_hash, release_digest);
CREATE INDEX approval_by_tenant ON approval (tenant, created_at DESC);
CREATE INDEX approval_by_end ON approval (expires_at) WHERE state IN ('open', 'approved');
CREATE INDEX approval_by_approver ON approval (tenant, answered_by) WHERE state = 'approved';

-- End requests and unused approvals, and put it on record. The caller holds the epoch and their lineages. Gives how many.
CREATE FUNCTION end_approvals(p_ids text[], p_to text, p_why text, p_note text, p_by text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    v_ids   text[];
    v_chain text[];
    v_call  text[];
    v_body  text[];
    v_salt  bytea[];
    v_commitment bytea[];
BEGIN
    IF cardinality(p_ids) = 0 THEN
        RETURN 0;
    END IF;
    WITH ended AS (
        UPDATE approval a SET state = p_to, note = CASE WHEN a.note = '' THEN p_note ELSE a.note END
        WHERE a.approval_id = ANY (p_ids) AND a.state IN ('open', 'approved')
        RETURNING a.approval_id, a.session_id, a.call_id
    ), told AS MATERIALIZED (
        SELECT e.approval_id, e.session_id, e.call_id, uuid_send(gen_random_uuid()) AS salt,
               json_build_object('kind', 'approval.ended', 'approval_id', e.approval_id, 'to', p_to, 'why', p_why, 'by', p_by)::text
                   AS body
        FROM ended e
    )
    SELECT array_agg(approval_id), array_agg(session_id), array_agg(call_id), array_agg(body), array_agg(salt),
           array_agg(commitment_of(salt, body))
    INTO v_ids, v_chain, v_call, v_body, v_salt, v_commitment FROM told;
    IF v_ids IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM append_events(v_chain, array_fill('approval.ended'::text, ARRAY[cardinality(v_ids)]), v_call, v_body, v_salt,
                          v_commitment);
    PERFORM pg_notify('interlock_approval', id) FROM unnest(v_ids) AS e(id);
    RETURN cardinality(v_ids);
END $$;

-- End what nobody answered or used in time, the oldest first. Gives how many.
CREATE FUNCTION expire_approvals(p_most int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    v_ids text[];
BEGIN
    IF NOT EXISTS (SELECT FROM approval a WHERE a.state IN ('open', 'approved') AND a.expires_at <= clock_timestamp()) THEN
        RETURN 0;  -- and nobody waits for anybody
    END IF;
    PERFORM FROM epoch WHERE id = 1 FOR SHARE;
    v_ids := ARRAY(SELECT a.approval_id FROM approval a
                   WHERE a.state IN ('open', 'approved') AND a.expires_at <= clock_timestamp() ORDER BY a.expires_at LIMIT p_most);
    PERFORM FROM lineage l WHERE l.lineage_id IN (SELECT a.lineage_id FROM approval a WHERE a.approval_id = ANY (v_ids))
    ORDER BY l.lineage_id FOR NO KEY UPDATE;
    RETURN end_approvals(v_ids, 'expired', 'expired', '', '');
END $$;

-- Ask for an approval, or find the request that is open already. `approval_id` is empty when too many of the lineage are open.
CREATE FUNCTION request_approval(
    p_id text, p_session text, p_lineage text, p_call text, p_operation text, p_call_hash text, p_release text, p_rule text,
    p_role text, p_policies text[], p_arguments text, p_show text[], p_evidence text, p_say text, p_holds_s int, p_most int,
    p_evidence_digest text,
    p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS TABLE (approval_id text, expires_at_us bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_now  timestamptz;
    v_open approval%ROWTYPE;
BEGIN
    PERFORM FROM epoch WHERE id = 1 FOR SHARE;
    PERFORM FROM lineage l WHERE l.lineage_id = p_lineage FOR NO KEY UPDATE;
    v_now := clock_timestamp();
    PERFORM end_approvals(ARRAY(
        SELECT a.approval_id FROM approval a
        WHERE a.lineage_id = p_lineage AND a.state IN ('open', 'approved') AND a.expires_at <= v_now),
        'expired', 'expired', '', '');
    -- INVARIANT: a yes holds for the object as it was shown, and what is shown to people is the object as it is.
    PERFORM end_approvals(ARRAY(
        SELECT a.approval_id FROM approval a
        WHERE a.lineage_id = p_lineage AND a.call_hash = p_call_hash AND a.release_digest = p_release
          AND a.state IN ('open', 'approved') AND a.evidence_digest <> p_evidence_digest),
        'outdated', 'object_changed', 'the object has changed since', '');
    SELECT * INTO v_open FROM approval a
    WHERE a.lineage_id = p_lineage AND a.call_hash = p_call_hash AND a.release_digest = p_release AND a.rule = p_rule
      AND a.state = 'open';
    IF FOUND AND v_open.policy_ids @> p_policies THEN
        approval_id := v_open.approval_id; expires_at_us := (extract(epoch FROM v_open.expires_at) * 1000000)::bigint;
        RETURN NEXT; RETURN;
    ELSIF FOUND THEN
        -- More is asked for than the open request would lift: it is no longer what a person should look at.
        PERFORM end_approvals(ARRAY[v_open.approval_id], 'withdrawn', 'more_asked', 'more had to be asked for', '');
    END IF;
    IF (SELECT count(*) FROM approval a WHERE a.lineage_id = p_lineage AND a.state = 'open') >= p_most THEN
        approval_id := ''; expires_at_us := 0;
        RETURN NEXT; RETURN;
    END IF;
    INSERT INTO approval (approval_id, tenant, environment, agent, user_id, lineage_id, session_id, call_id, task, operation,
                          call_hash, release_digest, rule, role, policy_ids, arguments, show, evidence, say, holds_s,
                          created_at, expires_at, evidence_digest)
    SELECT p_id, s.tenant, s.environment, s.agent, s.user_id, s.lineage_id, s.session_id, p_call, s.task, p_operation,
           p_call_hash, p_release, p_rule, p_role, p_policies, p_arguments, p_show, p_evidence, p_say, p_holds_s,
           v_now, v_now + p_holds_s * interval '1 second', p_evidence_digest
    FROM session s WHERE s.session_id = p_session AND s.lineage_id = p_lineage AND NOT s.revoked AND s.expires_at > v_now
    RETURNING approval.approval_id, (extract(epoch FROM approval.expires_at) * 1000000)::bigint
    INTO approval_id, expires_at_us;
    IF NOT FOUND THEN
        RETURN;  -- the session has ended: nobody is asked
    END IF;
    PERFORM append_events(ARRAY[p_session], ARRAY[p_kind], ARRAY[p_call], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
    PERFORM pg_notify('interlock_approval', p_id);
    RETURN NEXT;
END $$;

-- Answer or withdraw a request. Gives `done`, or why not: `unknown`, `requester`, `role`, `expired`, `outdated`, or the state
-- that it is in. An approval that was given and not used may still be withdrawn.
-- Who answers must hold the role by their own token and by the latest token of theirs that came by.
CREATE FUNCTION answer_approval(
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
            PERFORM end_approvals(ARRAY[p_id], 'expired', 'expired', '', '');
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
