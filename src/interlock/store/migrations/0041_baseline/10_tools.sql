-- Tools: operations that changed upstream are quarantined until a person accepts them; servers are asked what they list; and breakers
-- open when a tool fails.

-- An operation that changed upstream, and what it is listed as now. It is a control too (`quarantine:<environment>/<operation>`),
-- so claims see it.
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

-- What people accepted of what changed upstream.
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

-- Quarantine an operation. False, and nothing changed, when it is for this very listing already, or when it is not quarantined
-- and the listing is the reviewed one or somebody accepted it. One that is quarantined stays so, whatever is listed now, and
-- what is to be accepted is what is listed now; of such changes `p_most_told` are put on record.
-- What is quarantined for this very listing already needs no turn at the table of epochs.
CREATE FUNCTION quarantine_operation(
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

-- Let a quarantined operation run again as it is listed now; false, and nothing changed, when it is quarantined for another
-- listing than the one that was looked at, or not at all.
CREATE FUNCTION accept_operation(
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

-- Breakers: each process writes rows of its own, once a second, so no row is hot and no call waits for them.
CREATE UNLOGGED TABLE breaker (
    process_id   text NOT NULL,
    environment  text NOT NULL,
    operation    text NOT NULL,
    calls        int NOT NULL,
    failed       int NOT NULL,
    phase        text NOT NULL CHECK (phase IN ('closed', 'open', 'trying')),
    waits_ms     int NOT NULL,
    told_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (process_id, operation)
);
CREATE INDEX breaker_by_environment ON breaker (environment, told_at);

-- Write down what a process has counted, and sum up what the others of its environment said within the last three seconds.
-- What it no longer names has been quiet: its row goes.
CREATE FUNCTION tell_breakers(
    p_process text, p_environment text, p_operations text[], p_calls int[], p_failed int[], p_phases text[], p_waits_ms int[]
) RETURNS TABLE (operation text, calls bigint, failed bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    DELETE FROM breaker b WHERE b.process_id = p_process AND b.operation <> ALL (p_operations);
    INSERT INTO breaker AS b (process_id, environment, operation, calls, failed, phase, waits_ms)
    SELECT p_process, p_environment, v.operation, v.calls, v.failed, v.phase, v.waits_ms
    FROM unnest(p_operations, p_calls, p_failed, p_phases, p_waits_ms) AS v(operation, calls, failed, phase, waits_ms)
    ON CONFLICT (process_id, operation) DO UPDATE
    SET calls = excluded.calls, failed = excluded.failed, phase = excluded.phase, waits_ms = excluded.waits_ms,
        told_at = clock_timestamp();
    RETURN QUERY
        SELECT b.operation, sum(b.calls), sum(b.failed) FROM breaker b
        WHERE b.environment = p_environment AND b.process_id <> p_process
          AND b.told_at > clock_timestamp() - interval '3 seconds'
        GROUP BY b.operation;
END $$;
