-- What is known of a lineage besides its calls: what has entered its context, its labels, plans that were sealed before anything
-- untrusted was read, evidence of risk, and its posture.

-- What has entered the contexts of lineages, as hashed tokens: where an argument came from is looked up here.
CREATE TABLE context_item (
    lineage_id   text NOT NULL REFERENCES lineage,
    n            bigint NOT NULL,
    session_id   text NOT NULL,
    source       text NOT NULL,
    reference    text NOT NULL,
    standings    int[] NOT NULL,
    tokens       bytea[] NOT NULL,
    is_complete  boolean NOT NULL,
    entered_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (lineage_id, n)
);
ALTER TABLE context_item ALTER COLUMN tokens SET STORAGE EXTERNAL; -- hashes do not compress
CREATE TRIGGER context_item_is_not_edited BEFORE UPDATE ON context_item FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Add items in the given order; gives their numbers. `p_ways` says how many of `p_standings` and `p_tokens` belong to each item.
-- Lineages are locked by id, as claims lock them, and items are numbered under the lock: whoever has seen number n of a
-- lineage has seen all before it. An item of an unknown lineage gets the number 0 and is not kept.
CREATE FUNCTION add_context(
    p_lineage text[], p_session text[], p_source text[], p_reference text[], p_is_complete boolean[],
    p_ways int[], p_standings int[], p_tokens bytea[]
) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    v_numbers bigint[] := '{}';
    v_from    int := 1;
    v_n       bigint;
BEGIN
    PERFORM FROM lineage WHERE lineage_id = ANY (p_lineage) ORDER BY lineage_id FOR NO KEY UPDATE;
    FOR i IN 1 .. cardinality(p_lineage) LOOP
        INSERT INTO context_item (lineage_id, n, session_id, source, reference, standings, tokens, is_complete)
        SELECT l.lineage_id,
               coalesce((SELECT max(c.n) FROM context_item c WHERE c.lineage_id = l.lineage_id), 0) + 1,
               p_session[i], p_source[i], p_reference[i],
               p_standings[v_from : v_from + p_ways[i] - 1], p_tokens[v_from : v_from + p_ways[i] - 1], p_is_complete[i]
        FROM lineage l WHERE l.lineage_id = p_lineage[i]
        RETURNING n INTO v_n;
        v_numbers := v_numbers || coalesce(v_n, 0);
        v_n := NULL;
        v_from := v_from + p_ways[i];
    END LOOP;
    RETURN v_numbers;
END $$;

-- What one agent has read, those who work with it may be told by it: labels reach every open agent of the same work.
-- The lineages that work together with this one now, by id, itself among them: those with live sessions that came of the same
-- session by handing work on, and whoever these work with in turn. `p_session` counts though it may have ended just now.
CREATE FUNCTION lineages_at_work(p_lineage text, p_session text) RETURNS text[] LANGUAGE sql STABLE AS $$
    WITH RECURSIVE at_work(lineage_id) AS (
        SELECT p_lineage
        UNION
        SELECT o.lineage_id
        FROM at_work w
        JOIN session s ON s.lineage_id = w.lineage_id
            AND (s.session_id = p_session OR NOT s.revoked AND s.expires_at > clock_timestamp())
        CROSS JOIN LATERAL (SELECT coalesce(s.parents[cardinality(s.parents)], s.session_id) AS root) r
        CROSS JOIN LATERAL (
            SELECT x.lineage_id FROM session x
            WHERE x.session_id = r.root AND NOT x.revoked AND x.expires_at > clock_timestamp()
            UNION ALL
            SELECT x.lineage_id FROM session x
            WHERE x.parents @> ARRAY[r.root] AND x.parents <> '{}' AND NOT x.revoked AND x.expires_at > clock_timestamp()
        ) o
    )
    SELECT array_agg(w.lineage_id ORDER BY w.lineage_id) FROM at_work w
$$;

-- Those of them that are labelled less than this.
CREATE FUNCTION labelled_less(p_lineage text, p_session text, p_tainted boolean, p_confidentiality int) RETURNS text[]
LANGUAGE sql STABLE AS $$
    SELECT coalesce(array_agg(l.lineage_id ORDER BY l.lineage_id), '{}') FROM lineage l
    WHERE l.lineage_id = ANY (lineages_at_work(p_lineage, p_session))
      AND (p_tainted AND NOT l.tainted OR p_confidentiality > l.confidentiality)
$$;

-- Label a lineage and all that work with it at least so, which `p_raised` names. Gives `spread`, or `changed` when it names others
-- than there are. Every decision that read old labels is made again. Openings and claims hold the epochs, so none comes in between;
-- where only the lineage itself is labelled anew its own lock is enough, for whoever came to work with it would need that.
-- It waits its turn at the table of epochs: claims that come one after another could keep a mere row lock waiting for ever.
CREATE FUNCTION spread_labels(
    p_session text, p_lineage text, p_tainted boolean, p_confidentiality int, p_tainted_by text, p_confidential_by text,
    p_raised text[], p_call text, p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF p_raised = ARRAY[p_lineage] THEN
        PERFORM FROM epoch WHERE id = 1 FOR SHARE;
    ELSE
        LOCK TABLE epoch IN EXCLUSIVE MODE;
    END IF;
    PERFORM FROM lineage l WHERE l.lineage_id = ANY (p_raised || p_lineage) ORDER BY l.lineage_id FOR NO KEY UPDATE;
    IF labelled_less(p_lineage, p_session, p_tainted, p_confidentiality) <> p_raised THEN
        RETURN 'changed';
    END IF;
    UPDATE lineage l SET
        tainted_by = CASE WHEN p_tainted AND NOT l.tainted THEN p_tainted_by ELSE l.tainted_by END,
        confidential_by = CASE WHEN p_confidentiality > l.confidentiality THEN p_confidential_by ELSE l.confidential_by END,
        tainted = l.tainted OR p_tainted,
        confidentiality = greatest(l.confidentiality, p_confidentiality),
        facts_version = l.facts_version + 1
    WHERE l.lineage_id = ANY (p_raised);
    PERFORM append_events(ARRAY[p_session], ARRAY[p_kind], ARRAY[p_call], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
    RETURN 'spread';
END $$;

-- End the live sessions of a lineage, which `p_sessions` names in order, and all below them, and take its taint away. Gives
-- `fresh`; `under_way` while an answer to a call of it may still come; `changed` when it has other sessions, or its taint another
-- cause. Posture, confidentiality, counters, budgets and history stay. Claims and openings hold the epochs, so none comes in between.
CREATE FUNCTION start_fresh(
    p_lineage text, p_tainted_by text, p_sessions text[], p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE epoch IN EXCLUSIVE MODE;
    IF NOT EXISTS (SELECT FROM lineage WHERE lineage_id = p_lineage AND tainted AND tainted_by = p_tainted_by FOR NO KEY UPDATE)
       OR live_sessions(p_lineage) <> p_sessions THEN
        RETURN 'changed';
    ELSIF EXISTS (SELECT FROM claim WHERE lineage_id = p_lineage AND state = 'claimed') THEN
        RETURN 'under_way';
    END IF;
    -- What was decided before is stale now, whatever it read.
    UPDATE epoch SET revocation = revocation + 1 WHERE id = 1;
    UPDATE session SET revoked = true WHERE session_id = ANY (p_sessions);
    UPDATE lineage SET tainted = false, tainted_by = '', facts_version = facts_version + 1 WHERE lineage_id = p_lineage;
    PERFORM append_events(ARRAY['control'], ARRAY[p_kind], ARRAY[''], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
    RETURN 'fresh';
END $$;

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

-- Of several signals of one kind about one subject the highest counts, from when it was last seen.
CREATE TABLE risk_signal (
    lineage_id  text NOT NULL REFERENCES lineage,
    kind        text NOT NULL,
    subject     text NOT NULL,
    score       int NOT NULL CHECK (score BETWEEN 0 AND 100),
    seen_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (lineage_id, kind, subject)
);

-- What is usual for an agent: how often each feature of its calls was seen.
CREATE TABLE agent_habit (
    environment  text NOT NULL,
    tenant       text NOT NULL,
    agent        text NOT NULL,
    feature      text NOT NULL,
    seen         bigint NOT NULL,
    PRIMARY KEY (environment, tenant, agent, feature)
) WITH (fillfactor = 70);

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
    LOCK TABLE epoch IN EXCLUSIVE MODE;
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
