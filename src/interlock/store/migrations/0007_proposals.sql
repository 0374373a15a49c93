-- Releases are proposed by one person and activated by another; postures are lowered by people.

CREATE TABLE proposal (
    digest          text NOT NULL REFERENCES release,
    proposed_by     text NOT NULL,
    proposed_roles  text[] NOT NULL,
    proposed_in     text NOT NULL,
    tests_run       int NOT NULL,
    tests_failed    int NOT NULL,
    proposed_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (digest, proposed_by, proposed_in)
);
CREATE TRIGGER proposal_is_immutable BEFORE UPDATE OR DELETE ON proposal FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE TABLE activation (
    epoch         bigint PRIMARY KEY,
    digest        text NOT NULL REFERENCES release,
    activated_by  text NOT NULL,
    reason        text NOT NULL,
    activated_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TRIGGER activation_is_immutable BEFORE UPDATE OR DELETE ON activation FOR EACH ROW EXECUTE FUNCTION refuse_change();

GRANT SELECT ON proposal, activation TO interlock_app, interlock_auditor;
GRANT INSERT ON proposal, activation TO interlock_app;

-- Put a stored release in force, unless another than `p_expected` is by now. Gives the new epoch, or null.
CREATE FUNCTION activate_release_after(
    p_digest text, p_expected text, p_by text, p_reason text, p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_epoch bigint;
    v_now   text;
BEGIN
    SELECT release_digest INTO v_now FROM epoch WHERE id = 1 FOR NO KEY UPDATE;
    IF v_now <> p_expected THEN
        RETURN NULL;
    END IF;
    v_epoch := activate_release(p_digest, p_kind, p_body, p_salt, p_commitment);
    INSERT INTO activation (epoch, digest, activated_by, reason) VALUES (v_epoch, p_digest, p_by, p_reason);
    RETURN v_epoch;
END $$;

ALTER TABLE lineage ADD COLUMN posture_by text NOT NULL DEFAULT '', ADD COLUMN posture_reason text NOT NULL DEFAULT '';

-- Set the posture of a lineage, if it is still `p_expected`; every decision that read the old one is made again.
CREATE FUNCTION set_posture(
    p_lineage text, p_expected text, p_to text, p_by text, p_reason text,
    p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM epoch WHERE id = 1 FOR NO KEY UPDATE;
    UPDATE lineage SET posture = p_to, posture_by = p_by, posture_reason = p_reason, facts_version = facts_version + 1
    WHERE lineage_id = p_lineage AND posture = p_expected;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM append_events(ARRAY['control'], ARRAY[p_kind], ARRAY[''], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
    RETURN true;
END $$;

REVOKE EXECUTE ON FUNCTION activate_release_after, set_posture FROM PUBLIC;
GRANT EXECUTE ON FUNCTION activate_release_after, set_posture TO interlock_app;
