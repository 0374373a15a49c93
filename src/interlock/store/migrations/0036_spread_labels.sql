-- What one agent has read, those who work with it may be told by it: labels reach every open agent of the same work.

-- The lineages that work together with this one now, by id, itself among them: those with live sessions that came of the same
-- session by handing work on, and whoever these work with in turn. `p_session` counts though it may have ended just now.
CREATE FUNCTION lineages_at_work(p_lineage text, p_session text) RETURNS text[] LANGUAGE sql STABLE AS $$
    WITH RECURSIVE at_work(lineage_id) AS (
        SELECT p_lineage
        UNION
        SELECT o.lineage_id
        FROM at_work w
        JOIN session s ON s.lineage_id = w.lineage_id
            AND (s.session_id = p_session OR NOT s.revoked AND s.expires_at > clock_timestamp())
        CROSS JOIN LATERAL (SELECT coalesce(s.parents[cardinality(s.parents)], s.session_id) AS root) r
        CROSS JOIN LATERAL (
            SELECT x.lineage_id FROM session x
            WHERE x.session_id = r.root AND NOT x.revoked AND x.expires_at > clock_timestamp()
            UNION ALL
            SELECT x.lineage_id FROM session x
            WHERE x.parents @> ARRAY[r.root] AND x.parents <> '{}' AND NOT x.revoked AND x.expires_at > clock_timestamp()
        ) o
    )
    SELECT array_agg(w.lineage_id ORDER BY w.lineage_id) FROM at_work w
$$;

-- Those of them that are labelled less than this.
CREATE FUNCTION labelled_less(p_lineage text, p_session text, p_tainted boolean, p_confidentiality int) RETURNS text[]
LANGUAGE sql STABLE AS $$
    SELECT coalesce(array_agg(l.lineage_id ORDER BY l.lineage_id), '{}') FROM lineage l
    WHERE l.lineage_id = ANY (lineages_at_work(p_lineage, p_session))
      AND (p_tainted AND NOT l.tainted OR p_confidentiality > l.confidentiality)
$$;

-- Label a lineage and all that work with it at least so, which `p_raised` names. Gives `spread`, or `changed` when it names others
-- than there are. Every decision that read old labels is made again. Openings and claims hold the epochs, so none comes in between;
-- where only the lineage itself is labelled anew its own lock is enough, for whoever came to work with it would need that.
CREATE FUNCTION spread_labels(
    p_session text, p_lineage text, p_tainted boolean, p_confidentiality int, p_tainted_by text, p_confidential_by text,
    p_raised text[], p_call text, p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF p_raised = ARRAY[p_lineage] THEN
        PERFORM FROM epoch WHERE id = 1 FOR SHARE;
    ELSE
        PERFORM FROM epoch WHERE id = 1 FOR NO KEY UPDATE;
    END IF;
    PERFORM FROM lineage l WHERE l.lineage_id = ANY (p_raised || p_lineage) ORDER BY l.lineage_id FOR NO KEY UPDATE;
    IF labelled_less(p_lineage, p_session, p_tainted, p_confidentiality) <> p_raised THEN
        RETURN 'changed';
    END IF;
    UPDATE lineage l SET
        tainted_by = CASE WHEN p_tainted AND NOT l.tainted THEN p_tainted_by ELSE l.tainted_by END,
        confidential_by = CASE WHEN p_confidentiality > l.confidentiality THEN p_confidential_by ELSE l.confidential_by END,
        tainted = l.tainted OR p_tainted,
        confidentiality = greatest(l.confidentiality, p_confidentiality),
        facts_version = l.facts_version + 1
    WHERE l.lineage_id = ANY (p_raised);
    PERFORM append_events(ARRAY[p_session], ARRAY[p_kind], ARRAY[p_call], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
    RETURN 'spread';
END $$;

REVOKE EXECUTE ON FUNCTION lineages_at_work, labelled_less, spread_labels FROM PUBLIC;
GRANT EXECUTE ON FUNCTION lineages_at_work, labelled_less, spread_labels TO interlock_app;
