-- What enters a context with the settlement of a call is committed with it: no transaction of its own.

-- Add the items of the requests in `p_settled` (null: of none), and give how many. Items are in the order of their requests;
-- `p_ways` says how many of `p_standings` and `p_tokens` belong to each. The caller holds the lineages' locks, under which items
-- are numbered: whoever has seen number n of a lineage has seen all before it. A settlement that is sent again because its answer
-- was lost adds its item again, which changes nothing of what is known.
CREATE FUNCTION enter_contexts(
    p_settled int[], p_request int[], p_lineage text[], p_session text[], p_source text[], p_reference text[],
    p_is_complete boolean[], p_ways int[], p_standings int[], p_tokens bytea[]
) RETURNS int LANGUAGE plpgsql
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_items int := 0;
BEGIN
    IF p_settled IS NOT NULL AND p_request <> '{}' THEN
        INSERT INTO context_item (lineage_id, n, session_id, source, reference, standings, tokens, is_complete)
        SELECT i.lineage, coalesce(known.n, 0) + row_number() OVER (PARTITION BY i.lineage ORDER BY i.ord), i.session, i.source,
               i.reference, p_standings[i.until - i.ways + 1 : i.until], p_tokens[i.until - i.ways + 1 : i.until], i.is_complete
        FROM (
            SELECT *, (sum(u.ways) OVER (ORDER BY u.ord))::int AS until
            FROM unnest(p_request, p_lineage, p_session, p_source, p_reference, p_is_complete, p_ways) WITH ORDINALITY
                 AS u(request, lineage, session, source, reference, is_complete, ways, ord)
        ) i
        CROSS JOIN LATERAL (SELECT max(c.n) AS n FROM context_item c WHERE c.lineage_id = i.lineage) known
        WHERE i.request = ANY (p_settled);
        GET DIAGNOSTICS v_items = ROW_COUNT;
    END IF;
    RETURN v_items;
END $$;
REVOKE EXECUTE ON FUNCTION enter_contexts FROM PUBLIC;
GRANT EXECUTE ON FUNCTION enter_contexts TO interlock_app;
