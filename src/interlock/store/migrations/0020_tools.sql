-- Tools that changed upstream are quarantined until a person accepts them. A quarantine is a control, so claims see it.

CREATE TABLE quarantine (
    environment  text NOT NULL,
    operation    text NOT NULL,
    reviewed     text NOT NULL,
    pin          text NOT NULL,
    detail       text NOT NULL,
    findings     text[] NOT NULL,
    changes      int NOT NULL DEFAULT 0,
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

-- Claims come in the order of time: how often operations were used lately is found without reading them all.
CREATE INDEX claim_by_time ON claim USING brin (claimed_at) WITH (autosummarize = on);

-- Quarantine an operation. False, and nothing changed, when it is for this very listing already, or when it is not quarantined
-- and the listing is the reviewed one or somebody accepted it. One that is quarantined stays so, whatever is listed now, and
-- what is to be accepted is what is listed now; of such changes `p_most_told` are put on record.
CREATE FUNCTION quarantine_operation(
    p_environment text, p_operation text, p_reviewed text, p_pin text, p_detail text, p_findings text[], p_most_told int,
    p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_row quarantine%ROWTYPE;
BEGIN
    PERFORM FROM epoch WHERE id = 1 FOR NO KEY UPDATE;
    SELECT * INTO v_row FROM quarantine q WHERE (q.environment, q.operation) = (p_environment, p_operation);
    IF NOT FOUND THEN
        PERFORM FROM accepted_pin a
        WHERE (a.environment, a.operation, a.reviewed, a.pin) = (p_environment, p_operation, p_reviewed, p_pin);
        IF FOUND OR p_pin = p_reviewed THEN
            RETURN false;
        END IF;
        INSERT INTO quarantine (environment, operation, reviewed, pin, detail, findings)
        VALUES (p_environment, p_operation, p_reviewed, p_pin, p_detail, p_findings);
        PERFORM change_control('quarantine:' || p_environment || '/' || p_operation, true, 'changed upstream', 'interlock',
                               p_kind, p_body, p_salt, p_commitment);
        RETURN true;
    END IF;
    IF (v_row.reviewed, v_row.pin) = (p_reviewed, p_pin) THEN
        RETURN false;
    END IF;
    UPDATE quarantine q
    SET reviewed = p_reviewed, pin = p_pin, detail = p_detail, findings = p_findings, changes = q.changes + 1,
        noticed_at = clock_timestamp()
    WHERE (q.environment, q.operation) = (p_environment, p_operation);
    IF v_row.changes < p_most_told THEN
        PERFORM append_events(ARRAY['control'], ARRAY[p_kind], ARRAY[''], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
    END IF;
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
