-- The transactions that carry the guarantees (docs/decisions/0002).

-- Append events in the given order: number them, date them, link them, and move the heads of their chains.
-- The caller holds the lock that serialises each chain (the lineage's row, or the epoch row for `control`).
CREATE FUNCTION append_events(
    p_chain text[], p_kind text[], p_call text[], p_body text[], p_salt bytea[], p_commitment bytea[]
) RETURNS void LANGUAGE plpgsql
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_now       bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    v_event     record;
    v_chain     text := NULL;
    v_seq       bigint;
    v_link      bytea;
    v_chains    text[] := '{}';
    v_seqs      bigint[] := '{}';
    v_links     bytea[] := '{}';
    v_ords      bigint[] := '{}';
    v_ends      text[] := '{}';
    v_end_seqs  bigint[] := '{}';
    v_end_links bytea[] := '{}';
BEGIN
    FOR v_event IN
        SELECT chain_id, kind, call_id, commitment, ord
        FROM unnest(p_chain, p_kind, p_call, p_commitment) WITH ORDINALITY AS e(chain_id, kind, call_id, commitment, ord)
        ORDER BY chain_id, ord
    LOOP
        IF v_chain IS DISTINCT FROM v_event.chain_id THEN
            IF v_chain IS NOT NULL THEN
                v_ends := v_ends || v_chain; v_end_seqs := v_end_seqs || v_seq; v_end_links := v_end_links || v_link;
            END IF;
            v_chain := v_event.chain_id;
            SELECT head_seq, head_link INTO STRICT v_seq, v_link FROM chain WHERE chain_id = v_chain FOR NO KEY UPDATE;
        END IF;
        v_seq := v_seq + 1;
        v_link := sha256(v_link || convert_to(
            'interlock/event/1' || E'\n' || v_chain || E'\n' || v_seq || E'\n' || v_event.kind || E'\n' || v_now || E'\n'
            || v_event.call_id || E'\n', 'UTF8') || v_event.commitment);
        v_chains := v_chains || v_chain; v_seqs := v_seqs || v_seq; v_links := v_links || v_link; v_ords := v_ords || v_event.ord;
    END LOOP;
    IF v_chain IS NULL THEN
        RETURN;
    END IF;
    v_ends := v_ends || v_chain; v_end_seqs := v_end_seqs || v_seq; v_end_links := v_end_links || v_link;
    INSERT INTO event (chain_id, seq, kind, at_us, call_id, commitment, link)
    SELECT n.chain_id, n.seq, p_kind[n.ord], v_now, p_call[n.ord], p_commitment[n.ord], n.link
    FROM unnest(v_chains, v_seqs, v_links, v_ords) AS n(chain_id, seq, link, ord);
    INSERT INTO event_body (chain_id, seq, salt, body)
    SELECT n.chain_id, n.seq, p_salt[n.ord], p_body[n.ord]
    FROM unnest(v_chains, v_seqs, v_ords) AS n(chain_id, seq, ord);
    UPDATE chain SET head_seq = h.seq, head_link = h.link
    FROM unnest(v_ends, v_end_seqs, v_end_links) AS h(chain_id, seq, link)
    WHERE chain.chain_id = h.chain_id;
END $$;

-- Whether the process that holds a claim may still settle it.
CREATE FUNCTION owner_is_alive(p_process text, p_settle_by timestamptz, p_now timestamptz) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT p_settle_by > p_now
       AND EXISTS (SELECT FROM process WHERE process_id = p_process AND seen_at > p_now - interval '10 seconds')
$$;

-- One batch of claims, records and settlements of many callers, each answered for itself. Requests are applied in order.
-- What one request is refused for never touches another. A row that is bad in itself (it raises) fails the batch, which
-- the writer then sends row by row.
CREATE FUNCTION commit_batch(
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
                 tainted boolean, confidentiality int, settle_by_ms int, attempt int, state text, again boolean)
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
