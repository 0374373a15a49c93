-- A user starts an agent of theirs afresh: what it had read is in no context any more, so it taints no longer.

-- End the live sessions of a lineage, which `p_sessions` names in order, and all below them, and take its taint away. Gives
-- `fresh`; `under_way` while an answer to a call of it may still come; `changed` when it has other sessions, or its taint another
-- cause. Posture, confidentiality, counters, budgets and history stay. Claims and openings hold the epochs, so none comes in between.
CREATE FUNCTION start_fresh(
    p_lineage text, p_tainted_by text, p_sessions text[], p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE epoch IN EXCLUSIVE MODE;
    IF NOT EXISTS (SELECT FROM lineage WHERE lineage_id = p_lineage AND tainted AND tainted_by = p_tainted_by FOR NO KEY UPDATE)
       OR live_sessions(p_lineage) <> p_sessions THEN
        RETURN 'changed';
    ELSIF EXISTS (SELECT FROM claim WHERE lineage_id = p_lineage AND state = 'claimed') THEN
        RETURN 'under_way';
    END IF;
    -- What was decided before is stale now, whatever it read.
    UPDATE epoch SET revocation = revocation + 1 WHERE id = 1;
    UPDATE session SET revoked = true WHERE session_id = ANY (p_sessions);
    UPDATE lineage SET tainted = false, tainted_by = '', facts_version = facts_version + 1 WHERE lineage_id = p_lineage;
    PERFORM append_events(ARRAY['control'], ARRAY[p_kind], ARRAY[''], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
    RETURN 'fresh';
END $$;

-- As before, but it waits its turn: claims that come one after another could keep a mere row lock waiting for ever.
CREATE OR REPLACE FUNCTION spread_labels(
    p_session text, p_lineage text, p_tainted boolean, p_confidentiality int, p_tainted_by text, p_confidential_by text,
    p_raised text[], p_call text, p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF p_raised = ARRAY[p_lineage] THEN
        PERFORM FROM epoch WHERE id = 1 FOR SHARE;
    ELSE
        LOCK TABLE epoch IN EXCLUSIVE MODE;
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

-- The live sessions of a lineage, by id.
CREATE FUNCTION live_sessions(p_lineage text) RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT coalesce(array_agg(s.session_id ORDER BY s.session_id), '{}') FROM session s
    WHERE s.lineage_id = p_lineage AND NOT s.revoked AND s.expires_at > clock_timestamp()
$$;

REVOKE EXECUTE ON FUNCTION start_fresh, live_sessions FROM PUBLIC;
GRANT EXECUTE ON FUNCTION start_fresh, live_sessions TO interlock_app;
