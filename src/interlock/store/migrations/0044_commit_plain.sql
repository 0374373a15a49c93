-- Most batches in a third less of a processor (docs/decisions/0032).

-- A batch of claims, records and settlements of which each is answered yes, or nothing at all: null says that something about the
-- batch is not plain, that nothing was done, and that `commit_requests` has to look at it request by request.
--
-- First the locks, in one order for everybody (the epochs, the lineages by id, the budgets by account and holder); then a look, as
-- of a moment after them, at all that a request could be refused for; then what it writes, which nothing refuses any more.
--
-- `p_lineages`, `p_sessions`, `p_account` and `p_chains` name each thing once. `p_facts` is what was decided on (null: nothing was),
-- `p_claimed_in` whether there is a claim with the labels `p_tainted` and `p_ranks`; `p_decided_in` whether a session has to be live.
-- `p_wanted` is what has to have room, `p_taken` what is taken. Scopes of claim k stand in `p_claim_scopes` after `p_after[k]` up to
-- `p_until[k]`, and so do the ways of items; the events of chain k are those from `p_first[k]` to `p_last[k]`.
-- Columns that are only unnested come as texts: each array that plpgsql takes is copied when it begins.
--
-- The answer is JSON: the moment, and for each lineage its id, facts version, posture, labels, history version, and who set labels.
CREATE FUNCTION commit_plain(
    p_process text, p_control bigint, p_release bigint, p_revocation bigint,
    p_lineages text[], p_facts bigint[], p_claimed_in boolean[], p_tainted boolean[], p_ranks int[],
    p_sessions text[], p_session_lineages text[], p_decided_in boolean[], p_scopes text,
    p_budgets int, p_account text, p_holder text, p_cap text, p_wanted text, p_taken text,
    p_claims int, p_claim text, p_call text, p_session text, p_lineage text, p_operation text, p_call_hash text,
    p_release_digest text, p_settle_by_ms text, p_claim_tainted text, p_work text, p_after text, p_until text, p_claim_scopes text[],
    p_reserved text[], p_keys int, p_key text, p_key_source text, p_key_window_s text,
    p_settles int, p_settled text[], p_attempt int[], p_state text[], p_outcome text[],
    p_items int, p_item_lineage text, p_item_session text, p_item_nth text, p_item_after text, p_item_until text, p_source text,
    p_reference text, p_is_complete text, p_standings int[], p_tokens bytea[],
    p_chains text, p_first text, p_last text, p_kind text[], p_event_call text[], p_salt bytea[], p_commitment bytea[], p_body text[]
) RETURNS text LANGUAGE plpgsql
-- As in `commit_requests`; a bitmap is made of what is looked up one by one anyway.
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_lineages text;
    v_now      timestamptz;
    v_now_us   bigint;
    v_heads    int;
BEGIN
    -- What is compared stands in the rows that are locked, and Postgres gives a row that changed while it was waited for as it is now.
    SELECT json_agg(json_build_array(l.lineage_id, l.facts_version, l.posture, l.tainted, l.confidentiality, l.history_version,
                                     l.tainted_by, l.confidential_by))
    INTO v_lineages
    FROM (
        SELECT x.control FROM epoch x
        WHERE x.id = 1 AND (p_control IS NULL OR p_control = x.control AND p_release = x.release AND p_revocation = x.revocation)
        FOR SHARE
    ) e, LATERAL (
        SELECT y.* FROM lineage y WHERE y.lineage_id = ANY (p_lineages) AND e.control IS NOT NULL
        ORDER BY y.lineage_id FOR NO KEY UPDATE
    ) l
    WHERE l.facts_version = coalesce(p_facts[array_position(p_lineages, l.lineage_id)], l.facts_version)
      AND (NOT p_claimed_in[array_position(p_lineages, l.lineage_id)]
           OR l.posture <> 'halted' AND l.tainted >= p_tainted[array_position(p_lineages, l.lineage_id)]
              AND l.confidentiality >= p_ranks[array_position(p_lineages, l.lineage_id)])
    HAVING count(*) = cardinality(p_lineages);
    IF v_lineages IS NULL THEN
        RETURN NULL;
    END IF;
    IF p_budgets > 0 THEN
        IF p_budgets <> (
            SELECT count(*) FROM (
                SELECT b.wanted <= CASE WHEN b.holder = '' THEN b.cap WHEN x.cap = b.cap THEN x.size ELSE -1 END
                                   - x.held - x.spent AS fits
                FROM unnest(p_account::text[], p_holder::text[], p_cap::bigint[], p_wanted::bigint[])
                     AS b(account, holder, cap, wanted)
                JOIN budget x ON x.account = b.account AND x.holder = b.holder
                ORDER BY x.account, x.holder FOR NO KEY UPDATE OF x
            ) d WHERE d.fits
        ) THEN
            RETURN NULL;
        END IF;
    END IF;
    v_now := clock_timestamp();

    -- A statement of its own: it sees what was committed while the locks were waited for.
    IF cardinality(p_sessions) > 0 THEN
        IF EXISTS (SELECT FROM control c WHERE c.scope = ANY (p_scopes::text[]) AND c.halted)
           OR EXISTS (SELECT FROM claim c WHERE c.claim_id = ANY (p_claim::text[]))
           OR p_keys > 0 AND EXISTS (SELECT FROM idempotency k WHERE k.key = ANY (p_key::bytea[]))
           OR cardinality(p_sessions) <> (
               SELECT count(*) FROM session s
               WHERE s.session_id = ANY (p_sessions)
                 AND s.lineage_id = p_session_lineages[array_position(p_sessions, s.session_id)]
                 AND (NOT p_decided_in[array_position(p_sessions, s.session_id)] OR NOT s.revoked AND s.expires_at > v_now)) THEN
            RETURN NULL;
        END IF;
    END IF;
    IF p_settles > 0 THEN
        IF p_settles <> (
            SELECT count(*) FROM claim c
            WHERE c.claim_id = ANY (p_settled) AND c.state = 'claimed'
              AND c.attempt = p_attempt[array_position(p_settled, c.claim_id)]
              AND c.holding IS NULL AND c.history_n IS NULL AND c.work_n IS NULL
        ) THEN
            RETURN NULL;
        END IF;
    END IF;

    IF p_claims > 0 THEN
        INSERT INTO claim (claim_id, call_id, session_id, lineage_id, operation, call_hash, release_digest, scopes, key,
                           process_id, claimed_at, settle_by, reserved, tainted, work)
        SELECT q.claim, q.call, q.session, q.lineage, q.operation, q.hash, q.digest, p_claim_scopes[q.after + 1 : q.until], q.key,
               p_process, v_now, v_now + q.ms * interval '1 millisecond', q.reserved::jsonb, q.tainted, q.work
        FROM unnest(p_claim::text[], p_call::text[], p_session::text[], p_lineage::text[], p_operation::text[],
                    p_call_hash::text[], p_release_digest::text[], p_settle_by_ms::int[], p_claim_tainted::boolean[],
                    p_work::text[], p_after::int[], p_until::int[], p_key::bytea[], p_reserved)
             AS q(claim, call, session, lineage, operation, hash, digest, ms, tainted, work, after, until, key, reserved);
        IF p_keys > 0 THEN
            INSERT INTO idempotency (key, claim_id, call_hash, source, expires_at)
            SELECT q.key, q.claim, q.hash, q.source, v_now + q.window_s * interval '1 second'
            FROM unnest(p_key::bytea[], p_claim::text[], p_call_hash::text[], p_key_source::text[], p_key_window_s::int[])
                 AS q(key, claim, hash, source, window_s)
            WHERE q.key IS NOT NULL;
        END IF;
        IF p_budgets > 0 THEN
            UPDATE budget x SET spent = x.spent + b.taken
            FROM unnest(p_account::text[], p_holder::text[], p_taken::bigint[]) AS b(account, holder, taken)
            WHERE x.account = b.account AND x.holder = b.holder;
        END IF;
    END IF;
    IF p_settles > 0 THEN
        UPDATE claim c SET state = p_state[array_position(p_settled, c.claim_id)],
                           outcome = p_outcome[array_position(p_settled, c.claim_id)], settled_at = v_now, unsent = false
        WHERE c.claim_id = ANY (p_settled);
        IF p_items > 0 THEN
            -- Items are numbered under their lineages' locks: whoever has seen number n of a lineage has seen all before it.
            INSERT INTO context_item (lineage_id, n, session_id, source, reference, standings, tokens, is_complete)
            SELECT i.lineage, coalesce((SELECT max(x.n) FROM context_item x WHERE x.lineage_id = i.lineage), 0) + i.nth,
                   i.session, i.source, i.reference, p_standings[i.after + 1 : i.until], p_tokens[i.after + 1 : i.until],
                   i.is_complete
            FROM unnest(p_item_lineage::text[], p_item_session::text[], p_item_nth::int[], p_item_after::int[],
                        p_item_until::int[], p_source::text[], p_reference::text[], p_is_complete::boolean[])
                 AS i(lineage, session, nth, after, until, source, reference, is_complete);
        END IF;
    END IF;

    -- The events, numbered, dated and linked under the locks of their chains, one of each chain at a time, and the heads.
    v_now_us := (extract(epoch FROM v_now) * 1000000)::bigint;
    WITH RECURSIVE head AS (
        SELECT x.chain_id, x.head_seq, x.head_link, h.first, h.last
        FROM unnest(p_chains::text[], p_first::int[], p_last::int[]) AS h(id, first, last) JOIN chain x ON x.chain_id = h.id
        ORDER BY x.chain_id FOR NO KEY UPDATE OF x
    ), linked AS (
        SELECT h.chain_id, h.head_seq AS seq, h.head_link AS link, h.first - 1 AS i, h.first, h.last FROM head h
        UNION ALL
        SELECT k.chain_id, k.seq + 1, sha256(k.link || convert_to(
                   'interlock/event/1' || E'\n' || k.chain_id || E'\n' || k.seq + 1 || E'\n' || p_kind[k.i + 1] || E'\n'
                   || v_now_us || E'\n' || p_event_call[k.i + 1] || E'\n', 'UTF8') || p_commitment[k.i + 1]), k.i + 1, k.first, k.last
        FROM linked k WHERE k.i < k.last
    ), appended AS (
        INSERT INTO event (chain_id, seq, kind, at_us, call_id, commitment, link)
        SELECT k.chain_id, k.seq, p_kind[k.i], v_now_us, p_event_call[k.i], p_commitment[k.i], k.link
        FROM linked k WHERE k.i >= k.first
    ), kept AS (
        INSERT INTO event_body (chain_id, seq, salt, body)
        SELECT k.chain_id, k.seq, p_salt[k.i], p_body[k.i] FROM linked k WHERE k.i >= k.first
    )
    UPDATE chain x SET head_seq = k.seq, head_link = k.link FROM linked k WHERE k.i = k.last AND x.chain_id = k.chain_id;
    GET DIAGNOSTICS v_heads = ROW_COUNT;
    -- INVARIANT: nothing is claimed or settled whose events are not on record.
    IF v_heads <> cardinality(p_chains::text[]) THEN
        RAISE EXCEPTION 'a chain is missing: its events cannot be appended' USING ERRCODE = 'not_null_violation';
    END IF;
    RETURN '[' || v_now_us || ',' || v_lineages || ']';
END $$;

REVOKE EXECUTE ON FUNCTION commit_plain FROM PUBLIC;
GRANT EXECUTE ON FUNCTION commit_plain TO interlock_app;
