-- Tools that changed upstream are quarantined until a person accepts them. A quarantine is a control, so claims see it.

CREATE TABLE quarantine (
    environment  text NOT NULL,
    operation    text NOT NULL,
    reviewed     text NOT NULL,
    pin          text NOT NULL,
    detail       text NOT NULL,
    noticed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, operation)
);

CREATE TABLE accepted_pin (
    environment  text NOT NULL,
    operation    text NOT NULL,
    reviewed     text NOT NULL,
    pin          text NOT NULL,
    accepted_by  text NOT NULL,
    reason       text NOT NULL,
    accepted_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, operation, reviewed, pin)
);
CREATE TRIGGER accepted_pin_is_immutable BEFORE UPDATE OR DELETE ON accepted_pin FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- When each server was last asked what it lists, and what came of it.
CREATE TABLE tool_health (
    environment  text NOT NULL,
    tool         text NOT NULL,
    asked_at     timestamptz NOT NULL,
    listed_at    timestamptz,
    error        text NOT NULL,
    vanished     text[] NOT NULL,
    unpinned     text[] NOT NULL,
    new          text[] NOT NULL,
    PRIMARY KEY (environment, tool)
);

GRANT SELECT ON quarantine, accepted_pin, tool_health TO interlock_app, interlock_auditor;
GRANT INSERT ON accepted_pin TO interlock_app;
GRANT INSERT, UPDATE, DELETE ON quarantine TO interlock_app;
GRANT INSERT, UPDATE ON tool_health TO interlock_app;

-- Quarantine an operation; false, and nothing changed, when it is for this very listing already, or somebody accepted it.
CREATE FUNCTION quarantine_operation(
    p_environment text, p_operation text, p_reviewed text, p_pin text, p_detail text,
    p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM epoch WHERE id = 1 FOR NO KEY UPDATE;
    PERFORM FROM accepted_pin a
    WHERE (a.environment, a.operation, a.reviewed, a.pin) = (p_environment, p_operation, p_reviewed, p_pin);
    IF FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO quarantine AS q (environment, operation, reviewed, pin, detail)
    VALUES (p_environment, p_operation, p_reviewed, p_pin, p_detail)
    ON CONFLICT (environment, operation) DO UPDATE
    SET reviewed = excluded.reviewed, pin = excluded.pin, detail = excluded.detail, noticed_at = clock_timestamp()
    WHERE (q.reviewed, q.pin) <> (excluded.reviewed, excluded.pin);
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM change_control('quarantine:' || p_environment || '/' || p_operation, true, 'changed upstream', 'interlock',
                           p_kind, p_body, p_salt, p_commitment);
    RETURN true;
END $$;

-- Let a quarantined operation run again as it is listed now; false, and nothing changed, when it is quarantined for another
-- listing than the one that was looked at, or not at all.
CREATE FUNCTION accept_operation(
    p_environment text, p_operation text, p_pin text, p_by text, p_reason text,
    p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_reviewed text;
BEGIN
    PERFORM FROM epoch WHERE id = 1 FOR NO KEY UPDATE;
    DELETE FROM quarantine q WHERE (q.environment, q.operation, q.pin) = (p_environment, p_operation, p_pin)
    RETURNING q.reviewed INTO v_reviewed;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO accepted_pin (environment, operation, reviewed, pin, accepted_by, reason)
    VALUES (p_environment, p_operation, v_reviewed, p_pin, p_by, p_reason) ON CONFLICT DO NOTHING;
    PERFORM change_control('quarantine:' || p_environment || '/' || p_operation, false, p_reason, p_by,
                           p_kind, p_body, p_salt, p_commitment);
    RETURN true;
END $$;
REVOKE EXECUTE ON FUNCTION quarantine_operation, accept_operation FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quarantine_operation, accept_operation TO interlock_app;
