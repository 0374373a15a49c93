-- One batch of claims, records and settlements of many callers, each answered for itself. Requests are applied in order.
-- What one request is refused for never touches another. A row that is bad in itself (it raises) fails the batch, which
-- the writer then sends row by row.
--
-- What is the same for the whole batch is told once: `p_lineages` and `p_scopes` are all that the requests name, each once;
-- `p_account` .. `p_wanted` are the budgets that its claims ask of, each once, with what all of them ask together, and
-- `p_charge_*` what each claim asks of which of them (by number, from 1). `p_fresh`: some of these budgets may have no row yet;
-- `p_moves`: a settlement says that less or nothing was used of what its claim reserved. `p_session`, `p_lineage` and `p_outcome`
-- stand by the number of the request, which counts from 0.
-- `p_plain`: nothing is asked of any request that is not in the columns from `p_what` to `p_attempt`; claims and records that
-- were decided on epochs were so on those of `p_control` to `p_revocation`.
-- An answer with the number -1 is for all: each request is answered yes, and `outcome` says where the lineages stand.
CREATE FUNCTION commit_requests(
    p_process text, p_requests jsonb, p_session text[], p_lineage text[], p_outcome text[],
    p_lineages text[], p_scopes text[], p_settled text[], p_moves boolean,
    p_plain boolean, p_control bigint, p_release bigint, p_revocation bigint, p_what text[], p_claim text[], p_key bytea[],
    p_facts bigint[], p_tainted boolean[], p_confidentiality int[], p_attempt int[], p_keyed boolean,
    p_fresh boolean, p_account text[], p_holder text[], p_about text[], p_cap bigint[], p_window int[], p_wanted bigint[],
    p_charge_request int[], p_charge_budget int[], p_charge_amount bigint[], p_charge_lifted boolean[],
    p_event_request int[], p_kind text[], p_call text[], p_body text[], p_salt bytea[], p_commitment bytea[],
    p_item_request int[], p_item_nth int[], p_item_after int[], p_item_until int[], p_source text[], p_reference text[], p_is_complete boolean[],
    p_standings int[], p_tokens bytea[]
) RETURNS TABLE (
    n int, answer text, claim_id text, call_id text, claim_state text, outcome text, claimed_at_us bigint, settled_at_us bigint,
    owner_alive boolean, scope text, reason text, rate_limit int, rate_window_s int, retry_after_ms int, attempt int,
    control bigint, release bigint, revocation bigint, release_digest text,
    facts_version bigint, posture text, tainted boolean, confidentiality int,
    history_version bigint, tainted_by text, confidential_by text, history_n bigint
) LANGUAGE plpgsql
-- Every look-up is by primary key. Planned for a batch of unknown size on tables whose statistics lag behind, a join would
-- sometimes read a whole table instead. For the same reason there is nothing to gain from planning every call anew.
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    v_epoch     epoch%ROWTYPE;
    v_now       timestamptz;
    v_now_us    bigint;
    r           record;
    v_rate      jsonb;
    v_used      int;
    v_oldest    timestamptz;
    -- The lineages as they stand, changed by this batch as it goes on; l is the place of the request's own.
    l_id text[]; l_version bigint[]; l_posture text[]; l_tainted boolean[]; l_conf int[]; l_history bigint[]; l_tainter text[];
    l_secret text[]; l_changed boolean[]; l int; w int;
    v_halted    text[];
    v_halts     text[];
    v_keys      jsonb := '{}';   -- keys this batch has claimed: hex -> [claim, call, call_hash]
    v_rates     jsonb := '{}';   -- calls this batch has claimed: lineage and operation -> count
    v_works     bigint[] := array_fill(NULL::bigint, ARRAY[cardinality(p_session)]);  -- the same in that of its work
    v_numbers   bigint[] := array_fill(NULL::bigint, ARRAY[cardinality(p_session)]);  -- by request: its number in the history
    v_claims    int[] := '{}';
    v_settles   int[] := '{}';
    v_accepted  boolean[] := array_fill(false, ARRAY[cardinality(p_session)]);
    v_any       boolean := false;
    v_is_plain  boolean := false;
    v_freed     boolean := false;
    v_slot      text;
    v_spent     jsonb := '{}';   -- approvals this batch has used: id -> claim
    g_n int[]; g_a text[]; g_h text[]; g_m bigint[]; g_w int[]; g_used bigint[];
    v_tight     jsonb := '{}';   -- budgets of which this batch could ask too much: account -> room (null: no row)
    v_taken     jsonb := '{}';   -- what this batch has taken of them: account -> amount
    v_short     record;
    v_found     int;
    -- The chains by id with their heads, and the events as they are appended.
    c_id text[]; c_seq bigint[]; c_link bytea[]; c int;
    e_chain text[] := '{}'; e_seq bigint[] := '{}'; e_link bytea[] := '{}'; e_ord int[] := '{}';
    v_at_us     bigint;
    v_link      bytea;
BEGIN
    -- First the locks, in one order for everybody: the epochs, the lineages by id, the budgets by account and holder.
    SELECT * INTO STRICT v_epoch FROM epoch WHERE id = 1 FOR SHARE;
    SELECT array_agg(x.lineage_id), array_agg(x.facts_version), array_agg(x.posture), array_agg(x.tainted),
           array_agg(x.confidentiality), array_agg(x.history_version), array_agg(x.tainted_by), array_agg(x.confidential_by)
    INTO l_id, l_version, l_posture, l_tainted, l_conf, l_history, l_tainter, l_secret
    FROM (SELECT * FROM lineage y WHERE y.lineage_id = ANY (p_lineages) ORDER BY y.lineage_id FOR NO KEY UPDATE) x;
    l_changed := array_fill(false, ARRAY[coalesce(cardinality(l_id), 0)]);
    -- Of a call that has happened as it was reserved, only what slides has to be moved.
    IF p_settled <> '{}' AND (p_moves OR EXISTS (
        SELECT FROM claim x WHERE x.claim_id = ANY (p_settled) AND x.holding IS NOT NULL
    )) THEN
        SELECT array_agg(q.n), array_agg(g.a), array_agg(g.h), array_agg(g.m), array_agg(g.w),
               array_agg(CASE WHEN q.release_key THEN 0 ELSE coalesce((q.spent ->> g.a)::bigint, g.m) END)
        INTO g_n, g_a, g_h, g_m, g_w, g_used
        FROM (
            SELECT DISTINCT ON (p.claim_id) p.* FROM jsonb_to_recordset(p_requests) AS p(
                n int, kind text, claim_id text, state text, release_key boolean, spent jsonb)
            WHERE p.kind = 'settle' AND p.state <> 'in_doubt' ORDER BY p.claim_id, p.n
        ) q
        JOIN claim c ON c.claim_id = q.claim_id
        CROSS JOIN LATERAL jsonb_to_recordset(
            CASE WHEN q.release_key OR q.spent IS NOT NULL THEN coalesce(c.reserved, '[]') || coalesce(c.holding, '[]')
                 ELSE c.holding END) AS g(a text, h text, m bigint, w int);
    END IF;
    IF p_account <> '{}' THEN
        IF p_fresh THEN
            INSERT INTO budget (account, name, tenant, environment, about, shared, cap, window_s)
            SELECT b.a, split_part(b.a, ':', 1), s.tenant, s.environment, b.i, false, b.c, b.w
            FROM unnest(p_account, p_holder, p_about, p_cap, p_window) WITH ORDINALITY AS b(a, h, i, c, w, k)
            JOIN session s ON s.session_id = p_session[p_charge_request[array_position(p_charge_budget, b.k::int)] + 1]
            WHERE b.a <> '' AND b.h = '' AND NOT EXISTS (SELECT FROM budget x WHERE x.account = b.a AND x.holder = '')
            ORDER BY b.a ON CONFLICT DO NOTHING;
        END IF;
        IF g_n IS NULL AND NOT 0 < ANY (p_window) THEN
            -- All that counts stands in the rows themselves, so that what is read with the lock is how they stand.
            SELECT count(*), coalesce(jsonb_object_agg(d.a, d.room) FILTER (WHERE d.wanted > d.room), '{}') INTO v_found, v_tight
            FROM (
                SELECT x.account AS a, b.wanted,
                       CASE WHEN x.cap <> b.c AND b.h <> '' THEN -1
                            ELSE CASE WHEN b.h <> '' THEN x.size ELSE b.c END - x.held - x.spent END AS room
                FROM unnest(p_account, p_holder, p_cap, p_wanted) AS b(a, h, c, wanted)
                JOIN budget x ON x.account = b.a AND x.holder = b.h
                ORDER BY x.account, x.holder FOR NO KEY UPDATE OF x
            ) d;
        END IF;
    END IF;
    IF g_n IS NOT NULL OR p_account <> '{}' AND v_found IS DISTINCT FROM cardinality(p_account) THEN
        PERFORM FROM (
            SELECT b.a, b.h FROM unnest(p_account, p_holder) AS b(a, h) UNION SELECT g.a, g.h FROM unnest(g_a, g_h) AS g(a, h)
        ) t JOIN budget x ON x.account = t.a AND x.holder = t.h
        ORDER BY x.account, x.holder FOR NO KEY UPDATE OF x;
        v_now := clock_timestamp();
        SELECT coalesce(jsonb_object_agg(d.a, d.room), '{}') INTO v_tight FROM (
            SELECT b.a, b.wanted, CASE WHEN b.a = '' OR x.cap <> b.c AND b.h <> '' THEN -1
                                       ELSE CASE WHEN b.h <> '' THEN x.size ELSE b.c END - x.held - x.spent
                                            - budget_in_window(x.account, x.holder, x.window_s, v_now) END AS room
            FROM unnest(p_account, p_holder, p_cap, p_wanted) AS b(a, h, c, wanted)
            LEFT JOIN budget x ON x.account = b.a AND x.holder = b.h
        ) d WHERE d.room IS NULL OR d.wanted > d.room;
    END IF;
    v_now := clock_timestamp();
    v_now_us := (extract(epoch FROM v_now) * 1000000)::bigint;
    IF p_scopes <> '{}' THEN
        SELECT array_agg(c.scope), array_agg(c.reason) INTO v_halted, v_halts
        FROM control c WHERE c.scope = ANY (p_scopes) AND c.halted;
    END IF;

    -- Most batches are plain: nothing that any of their requests could be refused for is so, and nothing that others read
    -- changes. Then each is answered yes, in one row, with how the lineages stand; else they are looked at one by one.
    IF p_plain AND g_n IS NULL AND v_tight = '{}' AND v_halted IS NULL
       AND (p_control IS NULL OR (p_control, p_release, p_revocation) = (v_epoch.control, v_epoch.release, v_epoch.revocation)) THEN
        SELECT bool_and(coalesce(CASE
                   WHEN p_what[i] = 'settle' THEN own.state = 'claimed' AND own.attempt = p_attempt[i] AND own.history_n IS NULL
                   WHEN p_what[i] = 'record' AND p_facts[i] IS NULL THEN s.session_id IS NOT NULL
                   ELSE NOT s.revoked AND s.expires_at > v_now AND l_version[at] = p_facts[i]
                        AND (p_what[i] = 'record' OR (own.claim_id IS NULL AND k.key IS NULL AND l_posture[at] <> 'halted'
                             AND l_tainted[at] >= p_tainted[i] AND l_conf[at] >= p_confidentiality[i])) END, false)),
               array_agg(i - 1) FILTER (WHERE p_what[i] = 'claim'), array_agg(i - 1) FILTER (WHERE p_what[i] = 'settle')
        INTO v_is_plain, v_claims, v_settles
        FROM generate_series(1, cardinality(p_what)) AS i
        CROSS JOIN LATERAL array_position(l_id, p_lineage[i]) AS at
        LEFT JOIN session s ON s.session_id = p_session[i] AND s.lineage_id = p_lineage[i]
        LEFT JOIN claim own ON own.claim_id = p_claim[i]
        LEFT JOIN idempotency k ON k.key = p_key[i];
    END IF;

    IF v_is_plain THEN
        v_any := true;
        v_accepted := array_fill(true, ARRAY[cardinality(p_what)]);
        n := -1; answer := 'plain'; claimed_at_us := v_now_us;
        outcome := json_build_object('id', l_id, 'version', l_version, 'posture', l_posture, 'tainted', l_tainted, 'conf', l_conf,
                                     'history', l_history, 'tainter', l_tainter, 'secret', l_secret);
        RETURN NEXT;
    ELSE
        v_claims := '{}'; v_settles := '{}';
        FOR r IN
            SELECT q.*,
                   s.session_id IS NOT NULL AS known,
                   s.session_id IS NOT NULL AND NOT s.revoked AND s.expires_at > v_now AS live,
                   k.claim_id AS key_claim, k.call_hash AS key_hash,
                   kc.call_id AS key_call, kc.state AS key_state, kc.outcome AS key_outcome, kc.claimed_at AS key_claimed_at,
                   kc.settled_at AS key_settled_at, kc.process_id AS key_process, kc.settle_by AS key_settle_by,
                   own.state AS own_state, own.attempt AS own_attempt, own.call_hash AS own_hash, own.history_n AS own_n, own.work_n AS own_work_n
            FROM jsonb_to_recordset(p_requests) AS q(
                     work text, counts boolean, work_version bigint,
                     n int, kind text, claim_id text, call_id text, operation text, call_hash text,
                     scopes text[], key text, key_window_s int, rates jsonb,
                     control bigint, release bigint, revocation bigint, facts_version bigint,
                     tainted boolean, confidentiality int, attempt int, state text, again boolean, release_key boolean,
                     approvals text[], approved_hash text, history boolean, history_version bigint)
            LEFT JOIN session s ON s.session_id = p_session[q.n + 1] AND s.lineage_id = p_lineage[q.n + 1]
            LEFT JOIN idempotency k ON k.key = decode(q.key, 'hex')
            LEFT JOIN claim kc ON kc.claim_id = k.claim_id
            LEFT JOIN claim own ON own.claim_id = q.claim_id
            ORDER BY q.n
        LOOP
            n := r.n; answer := NULL; claim_id := r.claim_id; call_id := r.call_id; claim_state := NULL; outcome := NULL;
            claimed_at_us := NULL; settled_at_us := NULL; owner_alive := NULL; scope := NULL; reason := NULL;
            rate_limit := NULL; rate_window_s := NULL; retry_after_ms := NULL; attempt := r.own_attempt;
            control := v_epoch.control; release := v_epoch.release; revocation := v_epoch.revocation;
            release_digest := v_epoch.release_digest;
            l := array_position(l_id, p_lineage[r.n + 1]);
            w := array_position(l_id, r.work);

            IF r.kind = 'settle' THEN
                IF r.own_state IS NULL OR r.own_attempt <> r.attempt THEN
                    answer := 'not_settled'; claim_state := coalesce(r.own_state, 'unknown');
                ELSIF r.own_state = 'claimed' OR (r.own_state = 'in_doubt' AND r.state <> 'in_doubt') THEN
                    answer := 'settled'; v_settles := v_settles || r.n; v_accepted[r.n + 1] := true;
                    v_freed := v_freed OR r.release_key;
                    IF r.own_n IS NOT NULL THEN
                        l_history[l] := l_history[l] + 1; l_changed[l] := true; v_numbers[r.n + 1] := l_history[l];
                    END IF;
                    IF r.own_work_n IS NOT NULL AND w IS NOT NULL THEN
                        l_history[w] := l_history[w] + 1; l_changed[w] := true; v_works[r.n + 1] := l_history[w];
                    END IF;
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
                    OR r.facts_version <> l_version[l] OR r.history_version <> l_history[l]
                    OR r.work_version IS NOT NULL AND r.work_version IS DISTINCT FROM l_history[w]) THEN
                    answer := 'stale';
                ELSIF r.again AND EXISTS (
                    SELECT FROM event e JOIN unnest(p_event_request, p_commitment) AS v(request, commitment)
                    ON e.commitment = v.commitment
                    WHERE v.request = r.n AND e.call_id = r.call_id AND e.chain_id = p_session[r.n + 1]) THEN
                    answer := 'recorded';  -- sent again after a commit whose answer was lost
                ELSE
                    answer := 'recorded'; v_accepted[r.n + 1] := true;
                END IF;
            ELSIF r.own_state IS NOT NULL THEN
                -- Sent again after a commit whose answer was lost: ours if it is the same call and nobody has settled it.
                answer := CASE WHEN r.own_hash = r.call_hash AND r.own_state = 'claimed' THEN 'claimed' ELSE 'session_ended' END;
            ELSIF NOT r.live THEN
                answer := 'session_ended';
            ELSIF v_halted && r.scopes THEN
                SELECT h.scope, h.reason INTO STRICT scope, reason FROM unnest(v_halted, v_halts) AS h(scope, reason)
                WHERE h.scope = ANY (r.scopes) ORDER BY array_position(r.scopes, h.scope) LIMIT 1;
                answer := 'halted';
            ELSIF l_posture[l] = 'halted' THEN
                answer := 'halted'; scope := 'lineage'; reason := 'the posture of this lineage is halted';
            ELSIF (r.control, r.release, r.revocation) <> (v_epoch.control, v_epoch.release, v_epoch.revocation)
                  OR r.facts_version <> l_version[l] OR r.history_version <> l_history[l]
                  OR r.work_version IS NOT NULL AND r.work_version IS DISTINCT FROM l_history[w] THEN
                -- A decision that read no history is not asked which one.
                answer := 'stale';
            ELSIF r.key IS NOT NULL AND v_keys ? r.key THEN
                claim_id := v_keys -> r.key ->> 0; call_id := v_keys -> r.key ->> 1;
                IF v_keys -> r.key ->> 2 = r.call_hash THEN
                    answer := 'duplicate'; claim_state := 'claimed'; owner_alive := true; claimed_at_us := v_now_us;
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
                IF r.rates IS NOT NULL THEN
                    v_slot := p_lineage[r.n + 1] || ' ' || r.operation;
                    FOR v_rate IN SELECT * FROM jsonb_array_elements(r.rates) LOOP
                        SELECT count(*), min(c.claimed_at) INTO v_used, v_oldest FROM (
                            SELECT claimed_at FROM claim
                            WHERE lineage_id = p_lineage[r.n + 1] AND operation = r.operation
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
                END IF;
                -- Budgets that have room for everything this batch asks of them need no look; the others are counted one by one.
                IF answer IS NULL AND v_tight <> '{}' THEN
                    SELECT p_account[u.b] AS a, u.m, p_holder[u.b] AS h, (v_tight ->> p_account[u.b])::numeric AS room INTO v_short
                    FROM unnest(p_charge_request, p_charge_budget, p_charge_amount, p_charge_lifted) WITH ORDINALITY
                         AS u(request, b, m, lifted, k)
                    WHERE u.request = r.n AND v_tight ? p_account[u.b]
                      AND (v_tight ->> p_account[u.b] IS NULL
                           OR (NOT u.lifted AND u.m > (v_tight ->> p_account[u.b])::numeric))
                    ORDER BY u.k LIMIT 1;
                    IF FOUND THEN
                        answer := 'over_budget'; scope := v_short.a;
                        reason := CASE
                            WHEN v_short.a = '' THEN '{}'
                            WHEN v_short.h <> '' THEN 'draw'
                            WHEN v_short.room IS NULL THEN 'again'  -- its row was forgotten just now
                            ELSE (budget_report(v_short.a, v_short.m - v_short.room, v_now)
                                  || jsonb_build_object('batch', coalesce((v_taken ->> v_short.a)::numeric, 0)))::text END;
                    END IF;
                END IF;
                -- An approval is used by the one claim that it was given for, by somebody who may still give it.
                IF answer IS NULL AND r.approvals <> '{}' THEN
                    SELECT w.id INTO scope
                    FROM unnest(r.approvals) AS w(id)
                    LEFT JOIN approval a ON a.approval_id = w.id AND a.state = 'approved' AND a.expires_at > v_now
                        AND a.lineage_id = p_lineage[r.n + 1] AND a.call_hash = r.approved_hash
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
                    answer := 'claimed'; attempt := 1; claimed_at_us := v_now_us;
                    v_claims := v_claims || r.n; v_accepted[r.n + 1] := true;
                    IF v_tight <> '{}' THEN
                        SELECT v_tight || coalesce(jsonb_object_agg(b.a, (v_tight ->> b.a)::numeric - b.m), '{}'),
                               v_taken || coalesce(jsonb_object_agg(b.a, coalesce((v_taken ->> b.a)::numeric, 0) + b.m), '{}')
                        INTO v_tight, v_taken
                        FROM (SELECT p_account[u.b] AS a, u.m
                              FROM unnest(p_charge_request, p_charge_budget, p_charge_amount) AS u(request, b, m)
                              WHERE u.request = r.n) b WHERE b.a <> '' AND v_tight ? b.a;
                    END IF;
                    IF r.rates IS NOT NULL THEN
                        v_rates := jsonb_set(v_rates, ARRAY[v_slot], to_jsonb(coalesce((v_rates ->> v_slot)::int, 0) + 1));
                    END IF;
                    IF r.key IS NOT NULL THEN
                        v_keys := v_keys || jsonb_build_object(r.key, jsonb_build_array(r.claim_id, r.call_id, r.call_hash));
                    END IF;
                    -- The worst labels the contract allows are set before anything is read, and never lowered by a machine.
                    IF (r.tainted AND NOT l_tainted[l]) OR r.confidentiality > l_conf[l] THEN
                        IF r.tainted AND NOT l_tainted[l] THEN
                            l_tainter[l] := r.call_id || ' ' || r.operation; l_tainted[l] := true;
                        END IF;
                        IF r.confidentiality > l_conf[l] THEN
                            l_secret[l] := r.call_id || ' ' || r.operation; l_conf[l] := r.confidentiality;
                        END IF;
                        l_version[l] := l_version[l] + 1; l_changed[l] := true;
                    END IF;
                    IF r.history THEN
                        l_history[l] := l_history[l] + 1; l_changed[l] := true; v_numbers[r.n + 1] := l_history[l];
                    END IF;
                    IF r.counts THEN
                        l_history[w] := l_history[w] + 1; l_changed[w] := true; v_works[r.n + 1] := l_history[w];
                    END IF;
                END IF;
            END IF;
            v_any := v_any OR v_accepted[r.n + 1];
            facts_version := l_version[l]; posture := l_posture[l]; tainted := l_tainted[l]; confidentiality := l_conf[l];
            history_version := l_history[l]; tainted_by := l_tainter[l]; confidential_by := l_secret[l];
            history_n := v_numbers[r.n + 1];
            RETURN NEXT;
        END LOOP;
        IF NOT v_any THEN
            RETURN;
        END IF;
    END IF;

    IF v_claims <> '{}' THEN
        INSERT INTO claim (claim_id, call_id, session_id, lineage_id, operation, call_hash, release_digest, scopes, key,
                           process_id, claimed_at, settle_by, reserved, holding, tainted, history_n, remembered, work, work_n)
        SELECT q.claim_id, q.call_id, p_session[q.n + 1], p_lineage[q.n + 1], q.operation, q.call_hash, q.release_digest, q.scopes,
               decode(q.key, 'hex'), p_process, v_now, v_now + q.settle_by_ms * interval '1 millisecond',
               q.reserved, q.holding, coalesce(q.tainted, false), v_numbers[q.n + 1], q.remembered, q.work, v_works[q.n + 1]
        FROM jsonb_to_recordset(p_requests) AS q(
                 work text,
                 n int, claim_id text, call_id text, operation text, call_hash text,
                 release_digest text, scopes text[], key text, settle_by_ms int, reserved jsonb, holding jsonb,
                 tainted boolean, remembered text)
        WHERE q.n = ANY (v_claims);
        IF p_keyed THEN
            INSERT INTO idempotency AS i (key, claim_id, call_hash, source, expires_at)
            SELECT decode(q.key, 'hex'), q.claim_id, q.call_hash, q.key_source, v_now + q.key_window_s * interval '1 second'
            FROM jsonb_to_recordset(p_requests) AS q(
                     n int, claim_id text, call_hash text, key text, key_source text, key_window_s int)
            WHERE q.n = ANY (v_claims) AND q.key IS NOT NULL
            ON CONFLICT (key) DO UPDATE
            SET claim_id = excluded.claim_id, call_hash = excluded.call_hash, source = excluded.source,
                expires_at = excluded.expires_at;
        END IF;
        IF p_account <> '{}' THEN
            UPDATE budget x SET held = x.held + t.held, spent = x.spent + t.spent FROM (
                SELECT u.b, coalesce(sum(u.m) FILTER (WHERE p_window[u.b] > 0), 0) AS held,
                       coalesce(sum(u.m) FILTER (WHERE p_window[u.b] = 0), 0) AS spent
                FROM unnest(p_charge_request, p_charge_budget, p_charge_amount) AS u(request, b, m)
                WHERE u.request = ANY (v_claims) AND p_account[u.b] <> '' GROUP BY u.b
            ) t WHERE x.account = p_account[t.b] AND x.holder = p_holder[t.b];
        END IF;
    END IF;
    IF v_settles <> '{}' THEN
        -- A call that never happened gives back what it reserved; one whose end is not known keeps it; all others have
        -- used it, or what they are known to have used in its place.
        IF g_n IS NOT NULL THEN
            WITH back AS (
                SELECT g.a, g.h, g.w, sum(g.m) AS reserved, sum(g.used) AS used
                FROM unnest(g_n, g_a, g_h, g_m, g_w, g_used) AS g(n, a, h, m, w, used)
                WHERE g.n = ANY (v_settles) GROUP BY g.a, g.h, g.w
            ), moved AS (
                UPDATE budget x SET held = x.held - CASE WHEN k.w > 0 THEN k.reserved ELSE 0 END,
                                    spent = x.spent + CASE WHEN k.w > 0 THEN 0 ELSE k.used - k.reserved END
                FROM back k WHERE x.account = k.a AND x.holder = k.h
            )
            INSERT INTO budget_use AS u (account, holder, until, amount)
            SELECT k.a, k.h, budget_until(k.w, v_now), k.used FROM back k WHERE k.w > 0 AND k.used > 0
            ON CONFLICT (account, holder, until) DO UPDATE SET amount = u.amount + excluded.amount;
        END IF;
        UPDATE claim c SET state = q.state, outcome = p_outcome[q.n + 1], settled_at = v_now,
                           unsent = coalesce(q.release_key, false),
                           history_n = coalesce(v_numbers[q.n + 1], c.history_n), work_n = coalesce(v_works[q.n + 1], c.work_n)
        FROM jsonb_to_recordset(p_requests) AS q(n int, claim_id text, state text, release_key boolean)
        WHERE q.n = ANY (v_settles) AND c.claim_id = q.claim_id;
        IF v_freed THEN
            DELETE FROM idempotency i
            USING jsonb_to_recordset(p_requests) AS q(n int, claim_id text, release_key boolean), claim c
            WHERE q.n = ANY (v_settles) AND q.release_key AND c.claim_id = q.claim_id AND i.key = c.key
              AND i.claim_id = q.claim_id;
        END IF;
        IF p_item_request <> '{}' THEN
            -- Items are numbered under their lineages' locks: whoever has seen number n of a lineage has seen all before it.
            INSERT INTO context_item (lineage_id, n, session_id, source, reference, standings, tokens, is_complete)
            SELECT p_lineage[i.request + 1],
                   coalesce((SELECT max(x.n) FROM context_item x WHERE x.lineage_id = p_lineage[i.request + 1]), 0) + i.nth,
                   p_session[i.request + 1], i.source, i.reference, p_standings[i.after + 1 : i.until],
                   p_tokens[i.after + 1 : i.until], i.is_complete
            FROM unnest(p_item_request, p_item_nth, p_item_after, p_item_until, p_source, p_reference, p_is_complete)
                 AS i(request, nth, after, until, source, reference, is_complete)
            WHERE v_accepted[i.request + 1];
        END IF;
    END IF;
    IF true = ANY (l_changed) THEN
        UPDATE lineage y
        SET facts_version = s.version, tainted = s.tainted, confidentiality = s.conf, history_version = s.history,
            tainted_by = s.tainter, confidential_by = s.secret
        FROM unnest(l_id, l_version, l_tainted, l_conf, l_history, l_tainter, l_secret, l_changed)
             AS s(id, version, tainted, conf, history, tainter, secret, changed)
        WHERE s.changed AND y.lineage_id = s.id;
    END IF;

    -- The events, numbered, dated and linked in the order of their requests, and the heads of their chains.
    v_at_us := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    SELECT array_agg(h.chain_id), array_agg(h.head_seq), array_agg(h.head_link) INTO c_id, c_seq, c_link
    FROM (SELECT * FROM chain x WHERE x.chain_id = ANY (p_session) ORDER BY x.chain_id FOR NO KEY UPDATE) h;
    FOR i IN 1 .. cardinality(p_event_request) LOOP
        CONTINUE WHEN NOT v_accepted[p_event_request[i] + 1];
        c := array_position(c_id, p_session[p_event_request[i] + 1]);
        c_seq[c] := c_seq[c] + 1;
        v_link := sha256(c_link[c] || convert_to(
            'interlock/event/1' || E'\n' || c_id[c] || E'\n' || c_seq[c] || E'\n' || p_kind[i] || E'\n' || v_at_us || E'\n'
            || p_call[i] || E'\n', 'UTF8') || p_commitment[i]);
        c_link[c] := v_link;
        e_chain := e_chain || c_id[c]; e_seq := e_seq || c_seq[c]; e_link := e_link || v_link; e_ord := e_ord || i;
    END LOOP;
    WITH appended AS (
        INSERT INTO event (chain_id, seq, kind, at_us, call_id, commitment, link)
        SELECT e_chain[k], e_seq[k], p_kind[e_ord[k]], v_at_us, p_call[e_ord[k]], p_commitment[e_ord[k]], e_link[k]
        FROM generate_series(1, cardinality(e_ord)) AS k
    ), kept AS (
        INSERT INTO event_body (chain_id, seq, salt, body)
        SELECT e_chain[k], e_seq[k], p_salt[e_ord[k]], p_body[e_ord[k]] FROM generate_series(1, cardinality(e_ord)) AS k
    )
    UPDATE chain x SET head_seq = h.seq, head_link = h.link
    FROM unnest(c_id, c_seq, c_link) AS h(id, seq, link)
    WHERE x.chain_id = h.id AND x.chain_id = ANY (e_chain);
END $$;
