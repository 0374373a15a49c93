-- Evidence of risk by lineage, and what is usual for an agent.

-- Of several signals of one kind about one subject the highest counts, from when it was last seen.
CREATE TABLE risk_signal (
    lineage_id  text NOT NULL REFERENCES lineage,
    kind        text NOT NULL,
    subject     text NOT NULL,
    score       int NOT NULL CHECK (score BETWEEN 0 AND 100),
    seen_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (lineage_id, kind, subject)
);
-- Signals from before a person lowered the posture do not count any more: they have been looked at.
ALTER TABLE lineage ADD COLUMN risk_from timestamptz NOT NULL DEFAULT '-infinity';

CREATE TABLE agent_habit (
    environment  text NOT NULL,
    tenant       text NOT NULL,
    agent        text NOT NULL,
    feature      text NOT NULL,
    seen         bigint NOT NULL,
    PRIMARY KEY (environment, tenant, agent, feature)
) WITH (fillfactor = 70);
GRANT SELECT ON risk_signal, agent_habit TO interlock_app, interlock_auditor;
GRANT INSERT, UPDATE ON risk_signal, agent_habit TO interlock_app;

-- Note signals with their event, and give all that count for the lineage, these included. Under the lineage's lock, so that of two
-- processes that note something at once the second sees both.
CREATE FUNCTION note_risk(
    p_session text, p_lineage text, p_kinds text[], p_subjects text[], p_scores int[], p_forget_s bigint,
    p_kind text, p_call text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS TABLE (kind text, subject text, score int) LANGUAGE plpgsql AS $$
DECLARE
    v_from timestamptz;
BEGIN
    SELECT l.risk_from INTO v_from FROM lineage l WHERE l.lineage_id = p_lineage FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF p_forget_s > 0 THEN
        v_from := greatest(v_from, clock_timestamp() - make_interval(secs => p_forget_s));
    END IF;
    INSERT INTO risk_signal AS r (lineage_id, kind, subject, score)
    SELECT p_lineage, n.kind, n.subject, max(n.score)
    FROM unnest(p_kinds, p_subjects, p_scores) AS n(kind, subject, score) GROUP BY n.kind, n.subject
    ON CONFLICT ON CONSTRAINT risk_signal_pkey DO UPDATE
    SET score = CASE WHEN r.seen_at <= v_from THEN excluded.score ELSE greatest(r.score, excluded.score) END,
        seen_at = clock_timestamp();
    PERFORM append_events(ARRAY[p_session], ARRAY[p_kind], ARRAY[p_call], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
    RETURN QUERY SELECT r.kind, r.subject, r.score FROM risk_signal r WHERE r.lineage_id = p_lineage AND r.seen_at > v_from;
END $$;

-- When a posture is lowered, a person has looked at what led to it: that counts no more.
CREATE FUNCTION risk_was_looked_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.risk_from := clock_timestamp();
    RETURN NEW;
END $$;
CREATE TRIGGER lineage_risk_was_looked_at BEFORE UPDATE OF posture ON lineage FOR EACH ROW
WHEN (array_position(ARRAY['normal', 'guarded', 'read_only', 'halted'], NEW.posture)
      < array_position(ARRAY['normal', 'guarded', 'read_only', 'halted'], OLD.posture))
EXECUTE FUNCTION risk_was_looked_at();

REVOKE EXECUTE ON FUNCTION note_risk FROM PUBLIC;
GRANT EXECUTE ON FUNCTION note_risk TO interlock_app;
