-- What a lineage's calls were, for the facts that a release declares about its past; and which call brought what its labels say.

ALTER TABLE lineage
    ADD COLUMN history_version bigint NOT NULL DEFAULT 0,
    ADD COLUMN tainted_by text NOT NULL DEFAULT '',
    ADD COLUMN confidential_by text NOT NULL DEFAULT '';
COMMENT ON COLUMN lineage.history_version IS 'grows with every claim that the history counts, and with how it ends';
COMMENT ON COLUMN lineage.tainted_by IS 'the call (its id and operation) that was the first to bring untrusted content';
COMMENT ON COLUMN lineage.confidential_by IS 'the call that was the first to bring data as sensitive as the label says';
ALTER TABLE claim
    ADD COLUMN tainted boolean NOT NULL DEFAULT false,
    ADD COLUMN unsent boolean NOT NULL DEFAULT false,
    ADD COLUMN history_n bigint,
    ADD COLUMN remembered text;
COMMENT ON COLUMN claim.unsent IS 'it is known that it never reached its tool';
COMMENT ON COLUMN claim.history_n IS 'the history version that its last change made; null when no fact counted it';
COMMENT ON COLUMN claim.remembered IS 'its arguments as the history keeps them: hashes, and numbers that are added up';
CREATE INDEX claim_by_history ON claim (lineage_id, history_n) WHERE history_n IS NOT NULL;

DROP FUNCTION commit_batch;
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
    r           record;
    v_rate      jsonb;
    v_used      int;
    v_oldest    timestamptz;
    v_states    jsonb := '{}';   -- lineages whose state this batch has changed: id -> as of v_state
    v_keys      jsonb := '{}';   -- keys this batch has claimed: hex -> [claim, call, call_hash]
    v_rates     jsonb := '{}';   -- calls this batch has claimed: lineage and operation -> count
    v_state     jsonb;           -- [version, tainted, confidentiality, history version, tainted by, confidential by]
    v_version   bigint;
    v_tainted   boolean;
    v_conf      int;
    v_history   bigint;
    v_tainter   text;
    v_secret    text;
    v_numbers   jsonb := '{}';   -- requests that the history counts: n -> their number in the history of their lineage
    v_claims    int[] := '{}';
    v_settles   int[] := '{}';
    v_accepted  int[] := '{}';
    v_slot      text;
    v_spent     jsonb := '{}';   -- approvals this batch has used: id -> claim
    b_n int[]; b_a text[]; b_h text[]; b_c bigint[]; b_m bigint[]; b_w int[]; b_l boolean[];
    g_n int[]; g_a text[]; g_h text[]; g_m bigint[]; g_w int[]; g_used bigint[];
    v_tight     jsonb := '{}';   -- budgets of which this batch could ask too much: account -> room (null: no row)
    v_taken     jsonb := '{}';   -- what this batch has taken of them: account -> amount
    v_short     record;
BEGIN
    -- First the locks, in one order for everybody: the epochs, the lineages by id, the budgets by account and holder.
    SELECT * INTO STRICT v_epoch FROM epoch WHERE id = 1 FOR SHARE;
    PERFORM FROM lineage l
    WHERE l.lineage_id IN (SELECT q.lineage_id FROM jsonb_to_recordset(p_requests) AS q(lineage_id text))
    ORDER BY l.lineage_id FOR NO KEY UPDATE;
    -- What the claims ask of budgets, and what the settlements have to move, each read once.
    SELECT array_agg(q.n), array_agg(b.a), array_agg(b.h), array_agg(b.c), array_agg(b.m), array_agg(b.w), array_agg(b.l)
    INTO b_n, b_a, b_h, b_c, b_m, b_w, b_l
    FROM jsonb_to_recordset(p_requests) AS q(n int, budgets jsonb)
    CROSS JOIN LATERAL jsonb_to_recordset(q.budgets) AS b(a text, h text, c bigint, m bigint, w int, l boolean);
    -- Of a call that has happened as it was reserved, only what slides has to be moved.
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
    IF b_n IS NOT NULL THEN
        INSERT INTO budget (account, name, tenant, environment, about, shared, cap, window_s)
        SELECT DISTINCT ON (b.a) b.a, split_part(b.a, ':', 1), s.tenant, s.environment,
               (SELECT i.i FROM jsonb_to_recordset(p_requests -> b.n -> 'budgets') AS i(a text, i text) WHERE i.a = b.a LIMIT 1),
               false, b.c, b.w
        FROM unnest(b_n, b_a, b_h, b_c, b_w) AS b(n, a, h, c, w)
        JOIN session s ON s.session_id = p_requests -> b.n ->> 'session_id'
        WHERE b.a <> '' AND b.h = '' AND NOT EXISTS (SELECT FROM budget x WHERE x.account = b.a AND x.holder = '')
        ORDER BY b.a ON CONFLICT DO NOTHING;
    END IF;
    IF b_n IS NOT NULL OR g_n IS NOT NULL THEN
        PERFORM FROM (
            SELECT b.a, b.h FROM unnest(b_a, b_h) AS b(a, h) UNION SELECT g.a, g.h FROM unnest(g_a, g_h) AS g(a, h)
        ) t JOIN budget x ON x.account = t.a AND x.holder = t.h
        ORDER BY x.account, x.holder FOR NO KEY UPDATE OF x;
    END IF;
    v_now := clock_timestamp();
    IF b_n IS NOT NULL THEN
        SELECT coalesce(jsonb_object_agg(d.a, d.room), '{}') INTO v_tight FROM (
            SELECT d.a, d.wanted, CASE WHEN d.a = '' OR x.cap <> d.c AND d.h <> '' THEN -1
                                       ELSE CASE WHEN d.h <> '' THEN x.size ELSE d.c END - x.held - x.spent
                                            - budget_in_window(x.account, x.holder, x.window_s, v_now) END AS room
            FROM (
                SELECT b.a, b.h, min(b.c) AS c, coalesce(sum(b.m) FILTER (WHERE NOT b.l), 0) AS wanted
                FROM unnest(b_a, b_h, b_c, b_m, b_l) AS b(a, h, c, m, l) GROUP BY b.a, b.h
            ) d
            LEFT JOIN budget x ON x.account = d.a AND x.holder = d.h
        ) d WHERE d.room IS NULL OR d.wanted > d.room;
    END IF;

    FOR r IN
        SELECT q.*,
               s.session_id IS NOT NULL AS known,
               s.session_id IS NOT NULL AND NOT s.revoked AND s.expires_at > v_now AS live,
               l.facts_version AS now_version, l.posture AS now_posture, l.tainted AS now_tainted, l.confidentiality AS now_conf,
               l.history_version AS now_history, l.tainted_by AS now_tainter, l.confidential_by AS now_secret,
               k.claim_id AS key_claim, k.call_hash AS key_hash,
               kc.call_id AS key_call, kc.state AS key_state, kc.outcome AS key_outcome, kc.claimed_at AS key_claimed_at,
               kc.settled_at AS key_settled_at, kc.process_id AS key_process, kc.settle_by AS key_settle_by,
               own.state AS own_state, own.attempt AS own_attempt, own.call_hash AS own_hash, own.history_n AS own_n,
               halt.scope AS halt_scope, halt.reason AS halt_reason
        FROM jsonb_to_recordset(p_requests) AS q(
                 n int, kind text, claim_id text, call_id text, session_id text, lineage_id text, operation text, call_hash text,
                 scopes text[], key text, key_source text, key_window_s int, rates jsonb,
                 control bigint, release bigint, revocation bigint, facts_version bigint,
                 tainted boolean, confidentiality int, settle_by_ms int, attempt int, state text, again boolean,
                 approvals text[], approved_hash text, budgets jsonb, history text, history_version bigint)
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
        v_history := coalesce((v_state ->> 3)::bigint, r.now_history);
        v_tainter := coalesce(v_state ->> 4, r.now_tainter);
        v_secret := coalesce(v_state ->> 5, r.now_secret);

        IF r.kind = 'settle' THEN
            IF r.own_state IS NULL OR r.own_attempt <> r.attempt THEN
                answer := 'not_settled'; claim_state := coalesce(r.own_state, 'unknown');
            ELSIF r.own_state = 'claimed' OR (r.own_state = 'in_doubt' AND r.state <> 'in_doubt') THEN
                answer := 'settled'; v_settles := v_settles || r.n; v_accepted := v_accepted || r.n;
                IF r.own_n IS NOT NULL THEN
                    v_history := v_history + 1;
                    v_numbers := v_numbers || jsonb_build_object(r.n::text, v_history);
                    v_states := v_states || jsonb_build_object(r.lineage_id, jsonb_build_array(
                        v_version, v_tainted, v_conf, v_history, v_tainter, v_secret));
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
                OR r.facts_version <> v_version OR r.history_version <> v_history) THEN
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
              OR r.facts_version <> v_version OR r.history_version <> v_history THEN
            -- A decision that read no history is not asked which one.
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
            -- Budgets that have room for everything this batch asks of them need no look; the others are counted one by one.
            IF answer IS NULL AND v_tight <> '{}' THEN
                SELECT b.a, b.m, b.h, (v_tight ->> b.a)::numeric AS room INTO v_short
                FROM jsonb_to_recordset(r.budgets) AS b(a text, h text, m bigint, l boolean)
                WHERE v_tight ? b.a AND (v_tight ->> b.a IS NULL OR (NOT b.l AND b.m > (v_tight ->> b.a)::numeric))
                LIMIT 1;
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
                answer := 'claimed'; attempt := 1; claimed_at_us := (extract(epoch FROM v_now) * 1000000)::bigint;
                v_claims := v_claims || r.n; v_accepted := v_accepted || r.n;
                IF v_tight <> '{}' THEN
                    SELECT v_tight || coalesce(jsonb_object_agg(b.a, (v_tight ->> b.a)::numeric - b.m), '{}'),
                           v_taken || coalesce(jsonb_object_agg(b.a, coalesce((v_taken ->> b.a)::numeric, 0) + b.m), '{}')
                    INTO v_tight, v_taken
                    FROM jsonb_to_recordset(r.budgets) AS b(a text, m bigint) WHERE b.a <> '' AND v_tight ? b.a;
                END IF;
                v_rates := jsonb_set(v_rates, ARRAY[v_slot], to_jsonb(coalesce((v_rates ->> v_slot)::int, 0) + 1));
                IF r.key IS NOT NULL THEN
                    v_keys := v_keys || jsonb_build_object(r.key, jsonb_build_array(r.claim_id, r.call_id, r.call_hash));
                END IF;
                -- The worst labels the contract allows are set before anything is read, and never lowered by a machine.
                IF (r.tainted AND NOT v_tainted) OR r.confidentiality > v_conf THEN
                    IF r.tainted AND NOT v_tainted THEN
                        v_tainter := r.call_id || ' ' || r.operation;
                    END IF;
                    IF r.confidentiality > v_conf THEN
                        v_secret := r.call_id || ' ' || r.operation;
                    END IF;
                    v_version := v_version + 1; v_tainted := v_tainted OR r.tainted; v_conf := greatest(v_conf, r.confidentiality);
                    v_states := v_states || jsonb_build_object(r.lineage_id, jsonb_build_array(
                        v_version, v_tainted, v_conf, v_history, v_tainter, v_secret));
                END IF;
                IF r.history IS NOT NULL THEN
                    v_history := v_history + 1;
                    v_numbers := v_numbers || jsonb_build_object(r.n::text, v_history);
                    v_states := v_states || jsonb_build_object(r.lineage_id, jsonb_build_array(
                        v_version, v_tainted, v_conf, v_history, v_tainter, v_secret));
                END IF;
            END IF;
        END IF;
        facts_version := v_version; posture := r.now_posture; tainted := v_tainted; confidentiality := v_conf;
        history_version := v_history; tainted_by := v_tainter; confidential_by := v_secret;
        history_n := (v_numbers ->> r.n::text)::bigint;
        RETURN NEXT;
    END LOOP;

    IF v_claims <> '{}' THEN
        INSERT INTO claim (claim_id, call_id, session_id, lineage_id, operation, call_hash, release_digest, scopes, key,
                           process_id, claimed_at, settle_by, reserved, holding, tainted, history_n, remembered)
        SELECT q.claim_id, q.call_id, q.session_id, q.lineage_id, q.operation, q.call_hash, q.release_digest, q.scopes,
               decode(q.key, 'hex'), p_process, v_now, v_now + q.settle_by_ms * interval '1 millisecond',
               q.reserved, q.holding, coalesce(q.tainted, false), (v_numbers ->> q.n::text)::bigint, q.history
        FROM jsonb_to_recordset(p_requests) AS q(
                 n int, claim_id text, call_id text, session_id text, lineage_id text, operation text, call_hash text,
                 release_digest text, scopes text[], key text, settle_by_ms int, reserved jsonb, holding jsonb,
                 tainted boolean, history text)
        WHERE q.n = ANY (v_claims);
        INSERT INTO idempotency AS i (key, claim_id, call_hash, source, expires_at)
        SELECT decode(q.key, 'hex'), q.claim_id, q.call_hash, q.key_source, v_now + q.key_window_s * interval '1 second'
        FROM jsonb_to_recordset(p_requests) AS q(
                 n int, claim_id text, call_hash text, key text, key_source text, key_window_s int)
        WHERE q.n = ANY (v_claims) AND q.key IS NOT NULL
        ON CONFLICT (key) DO UPDATE
        SET claim_id = excluded.claim_id, call_hash = excluded.call_hash, source = excluded.source, expires_at = excluded.expires_at;
        IF b_n IS NOT NULL THEN
            UPDATE budget x SET held = x.held + t.held, spent = x.spent + t.spent FROM (
                SELECT b.a, b.h, coalesce(sum(b.m) FILTER (WHERE b.w > 0), 0) AS held,
                       coalesce(sum(b.m) FILTER (WHERE b.w = 0), 0) AS spent
                FROM unnest(b_n, b_a, b_h, b_m, b_w) AS b(n, a, h, m, w)
                WHERE b.n = ANY (v_claims) AND b.a <> '' GROUP BY b.a, b.h
            ) t WHERE x.account = t.a AND x.holder = t.h;
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
        UPDATE claim c SET state = q.state, outcome = p_outcomes[q.n + 1], settled_at = v_now,
                           unsent = coalesce(q.release_key, false),
                           history_n = coalesce((v_numbers ->> q.n::text)::bigint, c.history_n)
        FROM jsonb_to_recordset(p_requests) AS q(n int, claim_id text, state text, release_key boolean)
        WHERE q.n = ANY (v_settles) AND c.claim_id = q.claim_id;
        DELETE FROM idempotency i
        USING jsonb_to_recordset(p_requests) AS q(n int, claim_id text, release_key boolean), claim c
        WHERE q.n = ANY (v_settles) AND q.release_key AND c.claim_id = q.claim_id AND i.key = c.key AND i.claim_id = q.claim_id;
    END IF;
    IF v_states <> '{}' THEN
        UPDATE lineage l
        SET facts_version = (s.value ->> 0)::bigint, tainted = (s.value ->> 1)::boolean, confidentiality = (s.value ->> 2)::int,
            history_version = (s.value ->> 3)::bigint, tainted_by = s.value ->> 4, confidential_by = s.value ->> 5
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

REVOKE EXECUTE ON FUNCTION commit_batch FROM PUBLIC;
GRANT EXECUTE ON FUNCTION commit_batch TO interlock_app;
