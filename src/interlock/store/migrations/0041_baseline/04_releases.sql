-- Releases, which people propose and others put in force.

-- The releases that were ever put in force or proposed, whole.
CREATE TABLE release (
    digest    text PRIMARY KEY,
    name      text NOT NULL,
    files     text NOT NULL,
    saved_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TRIGGER release_is_immutable BEFORE UPDATE OR DELETE ON release FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Releases are proposed by one person and activated by another.
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

-- Which release was in force from which release epoch on, and who put it there.
CREATE TABLE activation (
    epoch         bigint PRIMARY KEY,
    digest        text NOT NULL REFERENCES release,
    activated_by  text NOT NULL,
    reason        text NOT NULL,
    activated_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TRIGGER activation_is_immutable BEFORE UPDATE OR DELETE ON activation FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Put a stored release in force. A digest that is not stored is refused.
CREATE FUNCTION activate_release(p_digest text, p_kind text, p_body text, p_salt bytea, p_commitment bytea)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_epoch bigint;
BEGIN
    PERFORM FROM release WHERE digest = p_digest;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'release % is not stored', p_digest;
    END IF;
    UPDATE epoch SET release = release + 1, release_digest = p_digest WHERE id = 1 RETURNING release INTO v_epoch;
    PERFORM append_events(ARRAY['control'], ARRAY[p_kind], ARRAY[''], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
    PERFORM pg_notify('interlock_release', p_digest);
    RETURN v_epoch;
END $$;

-- Put a stored release in force, unless another than `p_expected` is by now. Gives the new epoch, or null.
CREATE FUNCTION activate_release_after(
    p_digest text, p_expected text, p_by text, p_reason text, p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_epoch bigint;
    v_now   text;
BEGIN
    LOCK TABLE epoch IN EXCLUSIVE MODE;
    SELECT release_digest INTO v_now FROM epoch WHERE id = 1;
    IF v_now <> p_expected THEN
        RETURN NULL;
    END IF;
    v_epoch := activate_release(p_digest, p_kind, p_body, p_salt, p_commitment);
    INSERT INTO activation (epoch, digest, activated_by, reason) VALUES (v_epoch, p_digest, p_by, p_reason);
    RETURN v_epoch;
END $$;
