-- Budgets: what was used, what is reserved, and the slices in which shared ones are handed out (docs/decisions/0006).

-- A budget of one lineage, run or session is one row, with the holder ''. One that lineages share is a row for each
-- process that draws on it (`size` is its slice) and the pool, with the holder '', whose `size` is what is handed out.
-- `held` is reserved by calls whose end is not known, where a window slides; `spent` is used in the life of the run or session.
CREATE TABLE budget (
    account      text NOT NULL,
    holder       text NOT NULL DEFAULT '',
    name         text NOT NULL,
    tenant       text NOT NULL,
    environment  text NOT NULL,
    about        text NOT NULL,
    shared       boolean NOT NULL,
    cap          bigint NOT NULL,
    window_s     int NOT NULL,
    size         bigint NOT NULL DEFAULT 0 CHECK (size >= 0),
    held         bigint NOT NULL DEFAULT 0 CHECK (held >= 0),
    spent        bigint NOT NULL DEFAULT 0 CHECK (spent >= 0),
    made_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (account, holder)
) WITH (fillfactor = 50);
CREATE INDEX budget_by_age ON budget (made_at) WHERE NOT shared;
CREATE INDEX budget_by_tenant ON budget (tenant, name);

-- What was used within a sliding window, in steps of a sixtieth of it; each step counts until its last moment has left the window.
CREATE TABLE budget_use (
    account   text NOT NULL,
    holder    text NOT NULL,
    until     timestamptz NOT NULL,
    amount    bigint NOT NULL,
    PRIMARY KEY (account, holder, until)
) WITH (fillfactor = 50);
CREATE INDEX budget_use_by_end ON budget_use (until);

-- What of one row's window counts now.
CREATE FUNCTION budget_in_window(p_account text, p_holder text, p_window_s int, p_now timestamptz) RETURNS numeric
LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(u.amount), 0) FROM budget_use u
    WHERE p_window_s > 0 AND u.account = p_account AND u.holder = p_holder AND u.until > p_now
$$;

-- Until when something used now counts.
CREATE FUNCTION budget_until(p_window_s int, p_now timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
    SELECT to_timestamp((floor(extract(epoch FROM p_now) / step) + 1) * step + p_window_s)
    FROM (SELECT greatest(1, ceil(p_window_s / 60.0)) AS step) s
$$;

-- How an account stands for somebody who lacks `p_lacks`: used (reservations included), of that reserved by calls in flight,
-- and when enough of it will have left the window (null: not by itself).
CREATE FUNCTION budget_report(p_account text, p_lacks numeric, p_now timestamptz) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'used', (SELECT coalesce(sum(b.held + b.spent + budget_in_window(b.account, b.holder, b.window_s, p_now)), 0)
                 FROM budget b WHERE b.account = p_account),
        'in_flight', (SELECT coalesce(sum(g.m), 0) FROM claim c
                      CROSS JOIN LATERAL jsonb_to_recordset(coalesce(c.reserved, '[]') || coalesce(c.holding, '[]'))
                           AS g(a text, m bigint)
                      WHERE c.state = 'claimed' AND g.a = p_account),
        'after_ms', (SELECT CASE WHEN count(*) > 0 THEN greatest(1, ceil(1000 * extract(epoch FROM min(f.until) - p_now))) END
                     FROM (SELECT u.until, sum(u.amount) OVER (ORDER BY u.until) AS freed FROM budget_use u
                           WHERE u.account = p_account AND u.until > p_now) f
                     WHERE f.freed >= p_lacks))
$$;

-- Make the slice of a process large enough for one more call, if the limit allows. Gives `drawn`, `stale` (another release
-- is in force) or `short` with a report. Locks the epochs, the pool, then slices by holder: whoever claims or settles takes
-- rows in the same order and never waits for a pool.
-- Slices that hold more than the limit allows (it was lowered, or people lifted it) are no slices until they are counted anew.
CREATE FUNCTION draw_budget(
    p_account text, p_holder text, p_session text, p_name text, p_about text,
    p_cap bigint, p_window_s int, p_amount bigint, p_release bigint
) RETURNS TABLE (answer text, report jsonb) LANGUAGE plpgsql
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    v_release  bigint;
    v_now      timestamptz;
    v_pool     budget%ROWTYPE;
    v_own      budget%ROWTYPE;
    v_room     numeric;
    v_free     numeric;
    v_more     numeric;
    v_alive    int;
    v_used     numeric;
BEGIN
    report := NULL;
    SELECT e.release INTO STRICT v_release FROM epoch e WHERE e.id = 1 FOR SHARE;
    IF v_release <> p_release THEN
        answer := 'stale'; RETURN NEXT; RETURN;
    END IF;
    INSERT INTO budget (account, holder, name, tenant, environment, about, shared, cap, window_s)
    SELECT p_account, '', p_name, s.tenant, s.environment, p_about, true, p_cap, p_window_s
    FROM session s WHERE s.session_id = p_session ON CONFLICT DO NOTHING;
    SELECT * INTO STRICT v_pool FROM budget b WHERE b.account = p_account AND b.holder = '' FOR NO KEY UPDATE;
    INSERT INTO budget (account, holder, name, tenant, environment, about, shared, cap, window_s)
    SELECT p_account, p_holder, p_name, v_pool.tenant, v_pool.environment, p_about, true, p_cap, p_window_s
    ON CONFLICT DO NOTHING;
    v_now := clock_timestamp();
    SELECT greatest(1, count(*)) INTO v_alive FROM process p
    WHERE p.environment = v_pool.environment AND p.seen_at > v_now - interval '10 seconds';
    v_free := p_cap - v_pool.size;
    IF v_pool.cap = p_cap AND v_free >= p_amount THEN
        SELECT * INTO STRICT v_own FROM budget b WHERE b.account = p_account AND b.holder = p_holder FOR NO KEY UPDATE;
        v_room := v_own.size - v_own.held - budget_in_window(p_account, p_holder, p_window_s, v_now);
        -- Half of an equal share of what is left: slices get smaller as the limit comes near.
        v_more := CASE WHEN v_room >= p_amount THEN 0
                       ELSE least(v_free, greatest(p_amount - v_room, floor(v_free / (2 * v_alive)))) END;
        UPDATE budget b SET size = b.size + v_more WHERE b.account = p_account AND b.holder IN ('', p_holder) AND v_more > 0;
        answer := 'drawn'; RETURN NEXT; RETURN;
    END IF;
    -- What nobody uses comes back, of live and of dead processes alike: a slice is only ever spent under its row's lock.
    PERFORM FROM budget b WHERE b.account = p_account AND b.holder <> '' ORDER BY b.holder FOR NO KEY UPDATE;
    v_now := clock_timestamp();
    SELECT sum(b.held + budget_in_window(b.account, b.holder, p_window_s, v_now)) INTO STRICT v_used
    FROM budget b WHERE b.account = p_account AND b.holder <> '';
    v_free := p_cap - v_used;
    -- With more used than the limit allows (it was lowered, or people lifted it), no slice has room until this is counted
    -- anew, not even for what somebody gives back: it may have been beyond the limit.
    UPDATE budget b SET cap = p_cap, size = CASE WHEN v_free < 0 THEN 0
        ELSE b.held + budget_in_window(b.account, b.holder, p_window_s, v_now) END
    WHERE b.account = p_account AND b.holder <> '';
    DELETE FROM budget b WHERE b.account = p_account AND b.holder NOT IN ('', p_holder) AND b.held = 0
        AND budget_in_window(b.account, b.holder, p_window_s, v_now) = 0
        AND NOT EXISTS (SELECT FROM process p WHERE p.process_id = b.holder AND p.seen_at > v_now - interval '10 seconds');
    -- INVARIANT: the slices together are never larger than the limit.
    UPDATE budget b SET cap = p_cap, size = v_used WHERE b.account = p_account AND b.holder = '';
    IF v_free >= p_amount THEN
        v_more := greatest(p_amount, floor(v_free / (2 * v_alive)));
        UPDATE budget b SET size = b.size + v_more WHERE b.account = p_account AND b.holder IN ('', p_holder);
        answer := 'drawn';
    ELSE
        answer := 'short'; report := budget_report(p_account, p_amount - v_free, v_now);
    END IF;
    RETURN NEXT;
END $$;

-- Forget counters that nothing can ask for any more: windows that are over, and rows of sessions that ended long ago.
CREATE FUNCTION forget_budgets(p_idle_s int, p_limit int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    v_now    timestamptz := clock_timestamp();
    v_uses   int;
    v_rows   int;
BEGIN
    DELETE FROM budget_use u USING (
        SELECT account, holder, until FROM budget_use WHERE until < v_now - interval '1 minute'
        ORDER BY until LIMIT p_limit FOR UPDATE SKIP LOCKED
    ) old WHERE (u.account, u.holder, u.until) = (old.account, old.holder, old.until);
    GET DIAGNOSTICS v_uses = ROW_COUNT;
    DELETE FROM budget b USING (
        SELECT o.account FROM budget o
        WHERE NOT o.shared AND o.made_at < v_now - p_idle_s * interval '1 second' AND o.held = 0
          AND NOT EXISTS (SELECT FROM budget_use u WHERE u.account = o.account AND u.until > v_now)
        ORDER BY o.made_at LIMIT p_limit FOR UPDATE SKIP LOCKED
    ) old WHERE b.account = old.account AND b.holder = '';
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_uses + v_rows;
END $$;
