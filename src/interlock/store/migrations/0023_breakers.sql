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
GRANT SELECT, INSERT, UPDATE, DELETE ON breaker TO interlock_app;
GRANT SELECT ON breaker TO interlock_auditor;

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
REVOKE EXECUTE ON FUNCTION tell_breakers FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tell_breakers TO interlock_app;
