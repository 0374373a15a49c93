-- A worry about an agent is a worry about whoever it has handed work to: raising a lineage's posture raises those below it.

-- The lineages with live sessions below one of this lineage, by id: everything that acts for it now.
CREATE FUNCTION lineages_below(p_lineage text) RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT coalesce(array_agg(DISTINCT s.lineage_id ORDER BY s.lineage_id), '{}')
    FROM session p JOIN session s ON s.parents @> ARRAY[p.session_id] AND s.parents <> '{}'
    WHERE p.lineage_id = p_lineage AND p.expires_at > clock_timestamp() AND NOT p.revoked
      AND s.expires_at > clock_timestamp() AND NOT s.revoked AND s.lineage_id <> p_lineage
$$;

-- Set the posture of a lineage, if it is still `p_expected`, and raise those below it that are less worried, which `p_raised` names.
-- Gives `set`; `changed` when either is not so any more; `above` when an agent above it is more worried than it would be.
-- Every decision that read an old posture is made again. Openings and claims hold the epochs, so none comes in between.
CREATE FUNCTION set_posture(
    p_lineage text, p_expected text, p_to text, p_by text, p_reason text, p_raised text[],
    p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_order  text[] := ARRAY['normal', 'guarded', 'read_only', 'halted'];
    v_to     int := array_position(v_order, p_to);
    v_raised text[] := '{}';
BEGIN
    PERFORM FROM epoch WHERE id = 1 FOR NO KEY UPDATE;
    IF v_to > array_position(v_order, p_expected) THEN
        SELECT coalesce(array_agg(l.lineage_id ORDER BY l.lineage_id), '{}') INTO v_raised
        FROM lineage l WHERE l.lineage_id = ANY (lineages_below(p_lineage)) AND array_position(v_order, l.posture) < v_to;
    ELSIF EXISTS (
        SELECT FROM session s JOIN session p ON p.session_id = ANY (s.parents) JOIN lineage a ON a.lineage_id = p.lineage_id
        WHERE s.lineage_id = p_lineage AND s.parents <> '{}' AND s.expires_at > clock_timestamp() AND NOT s.revoked
          AND a.lineage_id <> p_lineage AND array_position(v_order, a.posture) > v_to
    ) THEN
        RETURN 'above';
    END IF;
    IF v_raised <> p_raised THEN
        RETURN 'changed';
    END IF;
    UPDATE lineage SET posture = p_to, posture_by = p_by, posture_reason = p_reason, facts_version = facts_version + 1
    WHERE lineage_id = p_lineage AND posture = p_expected;
    IF NOT FOUND THEN
        RETURN 'changed';
    END IF;
    UPDATE lineage SET posture = p_to, posture_by = p_by, posture_reason = 'an agent that it acts for: ' || p_reason,
        facts_version = facts_version + 1
    WHERE lineage_id = ANY (v_raised);
    PERFORM append_events(ARRAY['control'], ARRAY[p_kind], ARRAY[''], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
    RETURN 'set';
END $$;

DROP FUNCTION set_posture(text, text, text, text, text, text, text, bytea, bytea);
REVOKE EXECUTE ON FUNCTION lineages_below, set_posture FROM PUBLIC;
GRANT EXECUTE ON FUNCTION lineages_below, set_posture TO interlock_app;
