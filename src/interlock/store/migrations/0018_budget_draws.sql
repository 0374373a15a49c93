-- Slices that hold more than the limit allows (it was lowered, or people lifted it) are no slices until they are counted anew.

-- Make the slice of a process large enough for one more call, if the limit allows. Gives `drawn`, `stale` (another release
-- is in force) or `short` with a report. Locks the epochs, the pool, then slices by holder: whoever claims or settles takes
-- rows in the same order and never waits for a pool.
CREATE OR REPLACE FUNCTION draw_budget(
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
