-- Plans that were sealed before anything untrusted was read.

CREATE TABLE plan (
    session_id  text PRIMARY KEY REFERENCES session,
    lineage_id  text NOT NULL REFERENCES lineage,
    digest      text NOT NULL,
    body        text NOT NULL,
    sealed_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
-- INVARIANT: a sealed plan is never widened, nor changed in any other way.
CREATE TRIGGER plan_is_immutable BEFORE UPDATE OR DELETE ON plan FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER plan_is_not_truncated BEFORE TRUNCATE ON plan FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
GRANT SELECT ON plan TO interlock_app, interlock_auditor;
GRANT INSERT ON plan TO interlock_app;

-- Seal a plan. Gives `sealed`, `same` (this plan is sealed already), or why not: `ended`, `handed_down`, `other` (another plan is
-- sealed), `handed_on` (other agents work for it, whose reading nobody sees here), `no_input`, `tainted`.
-- Taint is set when a call is claimed, under the same lock: so a call in flight counts, and of a claim that brings untrusted
-- content and a plan the first wins. The version of the facts moves, so that whatever was decided without the plan is stale.
CREATE FUNCTION seal_plan(
    p_session text, p_lineage text, p_digest text, p_plan text, p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_lineage lineage%ROWTYPE;
    v_parents text[];
    v_digest  text;
BEGIN
    SELECT * INTO v_lineage FROM lineage WHERE lineage_id = p_lineage FOR NO KEY UPDATE;
    SELECT s.parents INTO v_parents FROM session s
    WHERE s.session_id = p_session AND s.lineage_id = p_lineage AND NOT s.revoked AND s.expires_at > clock_timestamp();
    IF NOT FOUND THEN
        RETURN 'ended';
    ELSIF v_parents <> '{}' THEN
        RETURN 'handed_down';
    END IF;
    SELECT digest INTO v_digest FROM plan WHERE session_id = p_session;
    IF FOUND THEN
        RETURN CASE WHEN v_digest = p_digest THEN 'same' ELSE 'other' END;
    ELSIF v_lineage.tainted THEN
        RETURN 'tainted';
    ELSIF NOT EXISTS (SELECT FROM event WHERE chain_id = p_session AND kind = 'input.received') THEN
        RETURN 'no_input';
    ELSIF EXISTS (SELECT FROM session WHERE parents @> ARRAY[p_session] AND parents <> '{}') THEN
        RETURN 'handed_on';
    END IF;
    INSERT INTO plan (session_id, lineage_id, digest, body) VALUES (p_session, p_lineage, p_digest, p_plan);
    UPDATE lineage SET facts_version = facts_version + 1 WHERE lineage_id = p_lineage;
    PERFORM append_events(ARRAY[p_session], ARRAY[p_kind], ARRAY[''], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
    RETURN 'sealed';
END $$;
REVOKE EXECUTE ON FUNCTION seal_plan FROM PUBLIC;
GRANT EXECUTE ON FUNCTION seal_plan TO interlock_app;
