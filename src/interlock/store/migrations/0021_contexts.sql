-- Items of many contexts are added in one statement and one commit, as claims are.

DROP FUNCTION add_context;

-- Add items in the given order; gives their numbers. `p_ways` says how many of `p_standings` and `p_tokens` belong to each item.
-- Lineages are locked by id, as claims lock them, and items are numbered under the lock: whoever has seen number n of a
-- lineage has seen all before it. An item of an unknown lineage gets the number 0 and is not kept.
CREATE FUNCTION add_context(
    p_lineage text[], p_session text[], p_source text[], p_reference text[], p_is_complete boolean[],
    p_ways int[], p_standings int[], p_tokens bytea[]
) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    v_numbers bigint[] := '{}';
    v_from    int := 1;
    v_n       bigint;
BEGIN
    PERFORM FROM lineage WHERE lineage_id = ANY (p_lineage) ORDER BY lineage_id FOR NO KEY UPDATE;
    FOR i IN 1 .. cardinality(p_lineage) LOOP
        INSERT INTO context_item (lineage_id, n, session_id, source, reference, standings, tokens, is_complete)
        SELECT l.lineage_id,
               coalesce((SELECT max(c.n) FROM context_item c WHERE c.lineage_id = l.lineage_id), 0) + 1,
               p_session[i], p_source[i], p_reference[i],
               p_standings[v_from : v_from + p_ways[i] - 1], p_tokens[v_from : v_from + p_ways[i] - 1], p_is_complete[i]
        FROM lineage l WHERE l.lineage_id = p_lineage[i]
        RETURNING n INTO v_n;
        v_numbers := v_numbers || coalesce(v_n, 0);
        v_n := NULL;
        v_from := v_from + p_ways[i];
    END LOOP;
    RETURN v_numbers;
END $$;
REVOKE EXECUTE ON FUNCTION add_context FROM PUBLIC;
GRANT EXECUTE ON FUNCTION add_context TO interlock_app;
