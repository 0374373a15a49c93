-- Quarantines wait their turn at the table of epochs from the start, as every change of a control does. Before, they held its row
-- and then asked for the table: two at once, or one and a claim that waited for the row, stood in each other's way until the
-- database ended one of them.

-- As before, but for how the epoch is taken. What is quarantined for this very listing already needs no turn.
CREATE OR REPLACE FUNCTION quarantine_operation(
    p_environment text, p_operation text, p_reviewed text, p_pin text, p_detail text, p_findings text[], p_most_told int,
    p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_row quarantine%ROWTYPE;
BEGIN
    PERFORM FROM quarantine q
    WHERE (q.environment, q.operation, q.reviewed, q.pin) = (p_environment, p_operation, p_reviewed, p_pin);
    IF FOUND THEN
        RETURN false;
    END IF;
    LOCK TABLE epoch IN EXCLUSIVE MODE;
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

CREATE OR REPLACE FUNCTION accept_operation(
    p_environment text, p_operation text, p_pin text, p_by text, p_reason text,
    p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_reviewed text;
BEGIN
    LOCK TABLE epoch IN EXCLUSIVE MODE;
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
