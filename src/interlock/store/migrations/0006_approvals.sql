-- People, as their latest token told of them, and what they approve.

CREATE TABLE person (
    tenant        text NOT NULL,
    user_id       text NOT NULL,
    roles         text[] NOT NULL,
    told_at_us    bigint NOT NULL,
    PRIMARY KEY (tenant, user_id)
);

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
                    CHECK (state IN ('open', 'approved', 'denied', 'withdrawn', 'expired', 'used')),
    holds_s         int NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at      timestamptz NOT NULL,
    answered_by     text NOT NULL DEFAULT '',
    answered_at     timestamptz,
    note            text NOT NULL DEFAULT '',
    used_by         text NOT NULL DEFAULT '',
    used_at         timestamptz
) WITH (fillfactor = 80);
-- INVARIANT: for one call of one lineage under one release there is at most one request that is open, a rule.
CREATE UNIQUE INDEX approval_open ON approval (lineage_id, call_hash, release_digest, rule) WHERE state = 'open';
CREATE INDEX approval_by_call ON approval (lineage_id, call_hash, release_digest);
CREATE INDEX approval_by_tenant ON approval (tenant, created_at DESC);

GRANT SELECT ON person, approval TO interlock_app, interlock_auditor;
GRANT INSERT, UPDATE ON person, approval TO interlock_app;

-- What a person's token says of them; an older token changes nothing that a newer one has said.
CREATE FUNCTION tell_person(p_tenant text, p_user text, p_roles text[], p_told_at_us bigint) RETURNS void LANGUAGE sql AS $$
    INSERT INTO person AS p (tenant, user_id, roles, told_at_us) VALUES (p_tenant, p_user, p_roles, p_told_at_us)
    ON CONFLICT (tenant, user_id) DO UPDATE SET roles = excluded.roles, told_at_us = excluded.told_at_us
    WHERE excluded.told_at_us >= p.told_at_us AND (p.roles, p.told_at_us) <> (excluded.roles, excluded.told_at_us)
$$;

-- Ask for an approval, or find the request that is open already. `approval_id` is empty when too many of the lineage are open.
CREATE FUNCTION request_approval(
    p_id text, p_session text, p_lineage text, p_call text, p_operation text, p_call_hash text, p_release text, p_rule text,
    p_role text, p_policies text[], p_arguments text, p_show text[], p_evidence text, p_say text, p_holds_s int, p_most int,
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
    UPDATE approval a SET state = 'expired' WHERE a.lineage_id = p_lineage AND a.state = 'open' AND a.expires_at <= v_now;
    SELECT * INTO v_open FROM approval a
    WHERE a.lineage_id = p_lineage AND a.call_hash = p_call_hash AND a.release_digest = p_release AND a.rule = p_rule
      AND a.state = 'open';
    IF FOUND AND v_open.policy_ids @> p_policies THEN
        approval_id := v_open.approval_id; expires_at_us := (extract(epoch FROM v_open.expires_at) * 1000000)::bigint;
        RETURN NEXT; RETURN;
    ELSIF FOUND THEN
        -- More is asked for than the open request would lift: it is no longer what a person should look at.
        UPDATE approval a SET state = 'withdrawn', note = 'more had to be asked for' WHERE a.approval_id = v_open.approval_id;
    END IF;
    IF (SELECT count(*) FROM approval a WHERE a.lineage_id = p_lineage AND a.state = 'open') >= p_most THEN
        approval_id := ''; expires_at_us := 0;
        RETURN NEXT; RETURN;
    END IF;
    INSERT INTO approval (approval_id, tenant, environment, agent, user_id, lineage_id, session_id, call_id, task, operation,
                          call_hash, release_digest, rule, role, policy_ids, arguments, show, evidence, say, holds_s,
                          created_at, expires_at)
    SELECT p_id, s.tenant, s.environment, s.agent, s.user_id, s.lineage_id, s.session_id, p_call, s.task, p_operation,
           p_call_hash, p_release, p_rule, p_role, p_policies, p_arguments, p_show, p_evidence, p_say, p_holds_s,
           v_now, v_now + p_holds_s * interval '1 second'
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
CREATE FUNCTION answer_approval(
    p_id text, p_to text, p_tenant text, p_user text, p_roles text[], p_note text,
    p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_digest  text;
    v_now     timestamptz;
    v_lineage text;
    v_asked   approval%ROWTYPE;
BEGIN
    SELECT release_digest INTO v_digest FROM epoch WHERE id = 1 FOR SHARE;
    SELECT lineage_id INTO v_lineage FROM approval WHERE approval_id = p_id;
    PERFORM FROM lineage WHERE lineage_id = v_lineage FOR NO KEY UPDATE;
    SELECT * INTO v_asked FROM approval WHERE approval_id = p_id FOR UPDATE;
    v_now := clock_timestamp();
    IF v_asked.approval_id IS NULL OR v_asked.tenant <> p_tenant THEN
        RETURN 'unknown';
    END IF;
    IF p_to = 'withdrawn' THEN
        IF p_user <> v_asked.user_id AND NOT v_asked.role = ANY (p_roles) THEN
            RETURN 'role';
        ELSIF v_asked.state NOT IN ('open', 'approved') THEN
            RETURN v_asked.state;
        END IF;
        UPDATE approval SET state = 'withdrawn', note = p_note, answered_by = p_user, answered_at = v_now
        WHERE approval_id = p_id;
    ELSE
        IF p_user = v_asked.user_id THEN
            RETURN 'requester';
        ELSIF NOT v_asked.role = ANY (p_roles) THEN
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

REVOKE EXECUTE ON FUNCTION tell_person, request_approval, answer_approval FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tell_person, request_approval, answer_approval TO interlock_app;

-- One batch of claims, records and settlements of many callers, each answered for itself. Requests are applied in order.
-- What one request is refused for never touches another. A row that is bad in itself (it raises) fails the batch, which
-- the writer then sends row by row.
CREATE OR REPLACE FUNCTION commit_batch(
    p_process text, p_requests jsonb, p_outcomes text[],
    p_event_request int[], p_kind text[], p_call text[], p_body text[], p_salt bytea[], p_commitment bytea[]
) RETURNS TABLE (
    n int, answer text, claim_id text, call_id text, claim_state text, outcome text, claimed_at_us bigint, settled_at_us bigint,
    owner_alive boolean, scope text, reason text, rate_limit int, rate_window_s int, retry_after_ms int, attempt int,
    control bigint, release bigint, revocation bigint, release_digest text,
    facts_version bigint, posture text, tainted boolean, confidentiality int
) LANGUAGE plpgsql
-- Every look-up is by primary key. Planned for a batch of unknown size on tables whose statistics lag behind, a join would
-- sometimes read a whole table instead. For the same reason there is nothing to gain from planning every call anew.
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    v_epoch     epoch%ROWTYPE;
    v_now       timestamptz;
    r           record;
    v_rate      jsonb;
    v_used      int;
    v_oldest    timestamptz;
    v_states    jsonb := '{}';   -- lineages whose state this batch has changed: id -> [version, tainted, confidentiality]
    v_keys      jsonb := '{}';   -- keys this batch has claimed: hex -> [claim, call, call_hash]
    v_rates     jsonb := '{}';   -- calls this batch has claimed: lineage and operation -> count
    v_state     jsonb;
    v_version   bigint;
    v_tainted   boolean;
    v_conf      int;
    v_claims    int[] := '{}';
    v_settles   int[] := '{}';
    v_accepted  int[] := '{}';
    v_slot      text;
    v_spent     jsonb := '{}';   -- approvals this batch has used: id -> claim
BEGIN
    -- First the locks, in one order for everybody: the epochs, then the lineages by id.
    SELECT * INTO STRICT v_epoch FROM epoch WHERE id = 1 FOR SHARE;
    PERFORM FROM lineage l
    WHERE l.lineage_id IN (SELECT q.lineage_id FROM jsonb_to_recordset(p_requests) AS q(lineage_id text))
    ORDER BY l.lineage_id FOR NO KEY UPDATE;
    v_now := clock_timestamp();

    FOR r IN
        SELECT q.*,
               s.session_id IS NOT NULL AS known,
               s.session_id IS NOT NULL AND NOT s.revoked AND s.expires_at > v_now AS live,
               l.facts_version AS now_version, l.posture AS now_posture, l.tainted AS now_tainted, l.confidentiality AS now_conf,
               k.claim_id AS key_claim, k.call_hash AS key_hash,
               kc.call_id AS key_call, kc.state AS key_state, kc.outcome AS key_outcome, kc.claimed_at AS key_claimed_at,
               kc.settled_at AS key_settled_at, kc.process_id AS key_process, kc.settle_by AS key_settle_by,
               own.state AS own_state, own.attempt AS own_attempt, own.call_hash AS own_hash,
               halt.scope AS halt_scope, halt.reason AS halt_reason
        FROM jsonb_to_recordset(p_requests) AS q(
                 n int, kind text, claim_id text, call_id text, session_id text, lineage_id text, operation text, call_hash text,
                 scopes text[], key text, key_source text, key_window_s int, rates jsonb,
                 control bigint, release bigint, revocation bigint, facts_version bigint,
                 tainted boolean, confidentiality int, settle_by_ms int, attempt int, state text, again boolean,
                 approvals text[], approved_hash text)
        LEFT JOIN session s ON s.session_id = q.session_id AND s.lineage_id = q.lineage_id
        LEFT JOIN lineage l ON l.lineage_id = q.lineage_id
        LEFT JOIN idempotency k ON k.key = decode(q.key, 'hex')
        LEFT JOIN claim kc ON kc.claim_id = k.claim_id
        LEFT JOIN claim own ON own.claim_id = q.claim_id
        LEFT JOIN LATERAL (
            SELECT c.scope, c.reason FROM control c WHERE c.halted AND c.scope = ANY (q.scopes)
            ORDER BY array_position(q.scopes, c.scope) LIMIT 1
        ) halt ON true
        ORDER BY q.n
    LOOP
        n := r.n; answer := NULL; claim_id := r.claim_id; call_id := r.call_id; claim_state := NULL; outcome := NULL;
        claimed_at_us := NULL; settled_at_us := NULL; owner_alive := NULL; scope := NULL; reason := NULL;
        rate_limit := NULL; rate_window_s := NULL; retry_after_ms := NULL; attempt := r.own_attempt;
        control := v_epoch.control; release := v_epoch.release; revocation := v_epoch.revocation;
        release_digest := v_epoch.release_digest;
        v_state := v_states -> r.lineage_id;
        v_version := coalesce((v_state ->> 0)::bigint, r.now_version);
        v_tainted := coalesce((v_state ->> 1)::boolean, r.now_tainted);
        v_conf := coalesce((v_state ->> 2)::int, r.now_conf);

        IF r.kind = 'settle' THEN
            IF r.own_state IS NULL OR r.own_attempt <> r.attempt THEN
                answer := 'not_settled'; claim_state := coalesce(r.own_state, 'unknown');
            ELSIF r.own_state = 'claimed' OR (r.own_state = 'in_doubt' AND r.state <> 'in_doubt') THEN
                answer := 'settled'; v_settles := v_settles || r.n; v_accepted := v_accepted || r.n;
            ELSIF r.own_state = r.state THEN
                answer := 'settled';  -- sent again after a commit whose answer was lost
            ELSE
                answer := 'not_settled'; claim_state := r.own_state;
            END IF;
        ELSIF r.kind = 'record' THEN
            IF NOT r.known OR (r.control IS NOT NULL AND NOT r.live) THEN
                answer := 'session_ended';
            ELSIF r.control IS NOT NULL AND (
                (r.control, r.release, r.revocation) <> (v_epoch.control, v_epoch.release, v_epoch.revocation)
                OR r.facts_version <> v_version) THEN
                answer := 'stale';
            ELSIF r.again AND EXISTS (
                SELECT FROM event e JOIN unnest(p_event_request, p_commitment) AS v(request, commitment)
                ON e.commitment = v.commitment WHERE v.request = r.n AND e.call_id = r.call_id AND e.chain_id = r.session_id) THEN
                answer := 'recorded';  -- sent again after a commit whose answer was lost
            ELSE
                answer := 'recorded'; v_accepted := v_accepted || r.n;
            END IF;
        ELSIF r.own_state IS NOT NULL THEN
            -- Sent again after a commit whose answer was lost: ours if it is the same call and nobody has settled it.
            answer := CASE WHEN r.own_hash = r.call_hash AND r.own_state = 'claimed' THEN 'claimed' ELSE 'session_ended' END;
        ELSIF NOT r.live THEN
            answer := 'session_ended';
        ELSIF r.halt_scope IS NOT NULL THEN
            answer := 'halted'; scope := r.halt_scope; reason := r.halt_reason;
        ELSIF r.now_posture = 'halted' THEN
            answer := 'halted'; scope := 'lineage'; reason := 'the posture of this lineage is halted';
        ELSIF (r.control, r.release, r.revocation) <> (v_epoch.control, v_epoch.release, v_epoch.revocation)
              OR r.facts_version <> v_version THEN
            answer := 'stale';
        ELSIF r.key IS NOT NULL AND v_keys ? r.key THEN
            claim_id := v_keys -> r.key ->> 0; call_id := v_keys -> r.key ->> 1;
            IF v_keys -> r.key ->> 2 = r.call_hash THEN
                answer := 'duplicate'; claim_state := 'claimed'; owner_alive := true;
                claimed_at_us := (extract(epoch FROM v_now) * 1000000)::bigint;
            ELSE
                answer := 'key_reused';
            END IF;
        ELSIF r.key_claim IS NOT NULL AND (r.key_state IN ('claimed', 'in_doubt')
              OR r.key_claimed_at + r.key_window_s * interval '1 second' > v_now) THEN
            -- An unsettled match counts however old it is.
            claim_id := r.key_claim; call_id := r.key_call;
            IF r.key_hash = r.call_hash THEN
                answer := 'duplicate'; claim_state := r.key_state; outcome := r.key_outcome;
                claimed_at_us := (extract(epoch FROM r.key_claimed_at) * 1000000)::bigint;
                settled_at_us := (extract(epoch FROM r.key_settled_at) * 1000000)::bigint;
                owner_alive := owner_is_alive(r.key_process, r.key_settle_by, v_now);
            ELSE
                answer := 'key_reused';
            END IF;
        ELSE
            v_slot := r.lineage_id || ' ' || r.operation;
            FOR v_rate IN SELECT * FROM jsonb_array_elements(coalesce(r.rates, '[]')) LOOP
                SELECT count(*), min(c.claimed_at) INTO v_used, v_oldest FROM (
                    SELECT claimed_at FROM claim
                    WHERE lineage_id = r.lineage_id AND operation = r.operation
                      AND claimed_at > v_now - (v_rate ->> 1)::int * interval '1 second'
                    ORDER BY claimed_at DESC LIMIT (v_rate ->> 0)::int
                ) c;
                IF v_used + coalesce((v_rates ->> v_slot)::int, 0) >= (v_rate ->> 0)::int THEN
                    answer := 'over_rate'; rate_limit := (v_rate ->> 0)::int; rate_window_s := (v_rate ->> 1)::int;
                    retry_after_ms := greatest(1, ceil(1000 * extract(epoch FROM
                        coalesce(v_oldest, v_now) + rate_window_s * interval '1 second' - v_now)))::int;
                    EXIT;
                END IF;
            END LOOP;
            -- An approval is used by the one claim that it was given for, by somebody who may still give it.
            IF answer IS NULL AND r.approvals <> '{}' THEN
                SELECT w.id INTO scope
                FROM unnest(r.approvals) AS w(id)
                LEFT JOIN approval a ON a.approval_id = w.id AND a.state = 'approved' AND a.expires_at > v_now
                    AND a.lineage_id = r.lineage_id AND a.call_hash = r.approved_hash
                    AND a.release_digest = v_epoch.release_digest
                LEFT JOIN person p ON p.tenant = a.tenant AND p.user_id = a.answered_by
                WHERE a.approval_id IS NULL OR p.roles IS NULL OR NOT a.role = ANY (p.roles) OR v_spent ? w.id
                LIMIT 1;
                IF FOUND THEN
                    answer := 'approval_gone';
                ELSE
                    UPDATE approval a SET state = 'used', used_by = r.claim_id, used_at = v_now
                    WHERE a.approval_id = ANY (r.approvals);
                    v_spent := v_spent || (SELECT jsonb_object_agg(w.id, r.claim_id) FROM unnest(r.approvals) AS w(id));
                END IF;
            END IF;
            IF answer IS NULL THEN
                answer := 'claimed'; attempt := 1; v_claims := v_claims || r.n; v_accepted := v_accepted || r.n;
                v_rates := jsonb_set(v_rates, ARRAY[v_slot], to_jsonb(coalesce((v_rates ->> v_slot)::int, 0) + 1));
                IF r.key IS NOT NULL THEN
                    v_keys := v_keys || jsonb_build_object(r.key, jsonb_build_array(r.claim_id, r.call_id, r.call_hash));
                END IF;
                -- The worst labels the contract allows are set before anything is read, and never lowered by a machine.
                IF (r.tainted AND NOT v_tainted) OR r.confidentiality > v_conf THEN
                    v_version := v_version + 1; v_tainted := v_tainted OR r.tainted; v_conf := greatest(v_conf, r.confidentiality);
                    v_states := v_states || jsonb_build_object(r.lineage_id, jsonb_build_array(v_version, v_tainted, v_conf));
                END IF;
            END IF;
        END IF;
        facts_version := v_version; posture := r.now_posture; tainted := v_tainted; confidentiality := v_conf;
        RETURN NEXT;
    END LOOP;

    IF v_claims <> '{}' THEN
        INSERT INTO claim (claim_id, call_id, session_id, lineage_id, operation, call_hash, release_digest, scopes, key,
                           process_id, claimed_at, settle_by)
        SELECT q.claim_id, q.call_id, q.session_id, q.lineage_id, q.operation, q.call_hash, q.release_digest, q.scopes,
               decode(q.key, 'hex'), p_process, v_now, v_now + q.settle_by_ms * interval '1 millisecond'
        FROM jsonb_to_recordset(p_requests) AS q(
                 n int, claim_id text, call_id text, session_id text, lineage_id text, operation text, call_hash text,
                 release_digest text, scopes text[], key text, settle_by_ms int)
        WHERE q.n = ANY (v_claims);
        INSERT INTO idempotency AS i (key, claim_id, call_hash, source, expires_at)
        SELECT decode(q.key, 'hex'), q.claim_id, q.call_hash, q.key_source, v_now + q.key_window_s * interval '1 second'
        FROM jsonb_to_recordset(p_requests) AS q(
                 n int, claim_id text, call_hash text, key text, key_source text, key_window_s int)
        WHERE q.n = ANY (v_claims) AND q.key IS NOT NULL
        ON CONFLICT (key) DO UPDATE
        SET claim_id = excluded.claim_id, call_hash = excluded.call_hash, source = excluded.source, expires_at = excluded.expires_at;
    END IF;
    IF v_settles <> '{}' THEN
        UPDATE claim c SET state = q.state, outcome = p_outcomes[q.n + 1], settled_at = v_now
        FROM jsonb_to_recordset(p_requests) AS q(n int, claim_id text, state text)
        WHERE q.n = ANY (v_settles) AND c.claim_id = q.claim_id;
        DELETE FROM idempotency i
        USING jsonb_to_recordset(p_requests) AS q(n int, claim_id text, release_key boolean), claim c
        WHERE q.n = ANY (v_settles) AND q.release_key AND c.claim_id = q.claim_id AND i.key = c.key AND i.claim_id = q.claim_id;
    END IF;
    IF v_states <> '{}' THEN
        UPDATE lineage l
        SET facts_version = (s.value ->> 0)::bigint, tainted = (s.value ->> 1)::boolean, confidentiality = (s.value ->> 2)::int
        FROM jsonb_each(v_states) AS s(key, value) WHERE l.lineage_id = s.key;
    END IF;
    PERFORM append_events(array_agg(e.chain ORDER BY e.ord), array_agg(e.kind ORDER BY e.ord), array_agg(e.call ORDER BY e.ord),
                          array_agg(e.body ORDER BY e.ord), array_agg(e.salt ORDER BY e.ord), array_agg(e.commitment ORDER BY e.ord))
    FROM (
        SELECT p_requests -> v.request ->> 'session_id' AS chain, v.kind, v.call, v.body, v.salt, v.commitment, v.ord
        FROM unnest(p_event_request, p_kind, p_call, p_body, p_salt, p_commitment) WITH ORDINALITY
             AS v(request, kind, call, body, salt, commitment, ord)
        WHERE v.request = ANY (v_accepted)
    ) e
    HAVING count(*) > 0;
END $$;
