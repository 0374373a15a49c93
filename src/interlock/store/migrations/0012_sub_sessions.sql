-- Sessions that an agent hands down to another: they end with those above them, and draw on the same budgets.

-- `parents` are the sessions above, the nearest first; `parent_agents` and `parent_calls` are theirs, in the same order.
ALTER TABLE session
    ADD COLUMN parents text[] NOT NULL DEFAULT '{}',
    ADD COLUMN parent_agents text[] NOT NULL DEFAULT '{}',
    ADD COLUMN parent_calls int[] NOT NULL DEFAULT '{}',
    ADD COLUMN run text NOT NULL DEFAULT '',
    ADD COLUMN operations text[],
    ADD COLUMN max_calls int NOT NULL DEFAULT 0;
CREATE INDEX session_by_parents ON session USING gin (parents) WHERE parents <> '{}';

-- INVARIANT: whoever ends a session, and however, ends all that came of it. Opening one waits for this, and this for it.
CREATE FUNCTION end_handed_down() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE session SET revoked = true WHERE parents @> ARRAY[NEW.session_id] AND parents <> '{}' AND NOT revoked;
    RETURN NULL;
END $$;
CREATE TRIGGER ended_with_its_parent AFTER UPDATE OF revoked ON session
    FOR EACH ROW WHEN (NEW.revoked AND NOT OLD.revoked) EXECUTE FUNCTION end_handed_down();

-- Hand a session down. Gives `opened`, `ended` (it, or one above it, is over) or `too_many` (it has as many as it may).
-- What is below inherits the worries of what is above: posture, taint and confidentiality. Locks: epochs, lineages by id, sessions.
CREATE FUNCTION open_sub_session(
    p_session text, p_parent text, p_lineage text, p_agent text, p_roles text[], p_attributes text, p_expires timestamptz,
    p_run text, p_operations text[], p_max_calls int, p_parent_calls int[], p_most int,
    p_kinds text[], p_bodies text[], p_salts bytea[], p_commitments bytea[]
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_parent  session%ROWTYPE;
    v_above   lineage%ROWTYPE;
    v_now     timestamptz;
    v_order   text[] := ARRAY['normal', 'guarded', 'read_only', 'halted'];
BEGIN
    PERFORM FROM epoch WHERE id = 1 FOR SHARE;
    SELECT * INTO v_parent FROM session WHERE session_id = p_parent;
    IF NOT FOUND THEN
        RETURN 'ended';
    END IF;
    INSERT INTO lineage (lineage_id, tenant, environment, agent, user_id)
    VALUES (p_lineage, v_parent.tenant, v_parent.environment, p_agent, v_parent.user_id) ON CONFLICT (lineage_id) DO NOTHING;
    PERFORM FROM lineage l WHERE l.lineage_id IN (p_lineage, v_parent.lineage_id) ORDER BY l.lineage_id FOR NO KEY UPDATE;
    PERFORM FROM session s WHERE s.session_id = ANY (v_parent.parents || p_parent) ORDER BY s.session_id FOR SHARE;
    v_now := clock_timestamp();
    IF EXISTS (SELECT FROM session s WHERE s.session_id = ANY (v_parent.parents || p_parent)
               AND (s.revoked OR s.expires_at <= v_now)) THEN
        RETURN 'ended';
    END IF;
    IF (SELECT count(*) FROM session s WHERE s.parents @> ARRAY[p_parent] AND s.parents <> '{}' AND s.parents[1] = p_parent
        AND NOT s.revoked AND s.expires_at > v_now) >= p_most THEN
        RETURN 'too_many';
    END IF;
    INSERT INTO chain (chain_id) VALUES (p_session);
    INSERT INTO session (session_id, lineage_id, tenant, environment, agent, user_id, task, roles, attributes, expires_at,
                         parents, parent_agents, parent_calls, run, operations, max_calls)
    VALUES (p_session, p_lineage, v_parent.tenant, v_parent.environment, p_agent, v_parent.user_id, v_parent.task, p_roles,
            p_attributes, least(p_expires, v_parent.expires_at), p_parent || v_parent.parents,
            v_parent.agent || v_parent.parent_agents, p_parent_calls, p_run, p_operations, p_max_calls);
    SELECT * INTO STRICT v_above FROM lineage WHERE lineage_id = v_parent.lineage_id;
    UPDATE lineage l SET
        posture = v_order[greatest(array_position(v_order, l.posture), array_position(v_order, v_above.posture))],
        tainted = l.tainted OR v_above.tainted,
        confidentiality = greatest(l.confidentiality, v_above.confidentiality),
        facts_version = l.facts_version + 1
    WHERE l.lineage_id = p_lineage
      AND (array_position(v_order, l.posture) < array_position(v_order, v_above.posture)
           OR v_above.tainted AND NOT l.tainted OR v_above.confidentiality > l.confidentiality);
    PERFORM append_events(ARRAY[p_session, p_parent], p_kinds, ARRAY['', ''], p_bodies, p_salts, p_commitments);
    RETURN 'opened';
END $$;

REVOKE EXECUTE ON FUNCTION open_sub_session, end_handed_down FROM PUBLIC;
GRANT EXECUTE ON FUNCTION open_sub_session, end_handed_down TO interlock_app;
