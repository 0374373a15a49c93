-- Facts about the past of a whole work: what an agent and all that came of its sessions did, hand-downs included.

ALTER TABLE claim
    ADD COLUMN work text,
    ADD COLUMN work_n bigint;
COMMENT ON COLUMN claim.work IS 'the lineage that the work came from; null when that is the claim''s own';
COMMENT ON COLUMN claim.work_n IS 'the history version of that lineage that its last change made; null when no fact counted it there';
CREATE INDEX claim_by_work ON claim (work, operation, claimed_at) WHERE work IS NOT NULL;
CREATE INDEX claim_by_work_history ON claim (work, work_n) WHERE work_n IS NOT NULL;

-- `commit_requests` learns of it. It is as it was but for these places, each of which must be there exactly once: a request may
-- name the lineage that its work came from (`work`), which the caller has locked with the others; `counts` says that the claim is
-- part of the past of the work, `work_version` which one was read of it.
DO $patch$
DECLARE
    v_text   text := pg_get_functiondef('commit_requests'::regproc);
    v_places text[] := ARRAY[
        'l_changed boolean[]; l int;',
        'l_changed boolean[]; l int; w int;',

        'v_numbers   bigint[] := array_fill(NULL::bigint, ARRAY[cardinality(p_session)]);',
        'v_works     bigint[] := array_fill(NULL::bigint, ARRAY[cardinality(p_session)]);  -- the same in that of its work
    v_numbers   bigint[] := array_fill(NULL::bigint, ARRAY[cardinality(p_session)]);',

        'own.history_n AS own_n
            FROM jsonb_to_recordset(p_requests) AS q(',
        'own.history_n AS own_n, own.work_n AS own_work_n
            FROM jsonb_to_recordset(p_requests) AS q(
                     work text, counts boolean, work_version bigint,',

        'l := array_position(l_id, p_lineage[r.n + 1]);',
        'l := array_position(l_id, p_lineage[r.n + 1]);
            w := array_position(l_id, r.work);',

        'IF r.own_n IS NOT NULL THEN
                        l_history[l] := l_history[l] + 1; l_changed[l] := true; v_numbers[r.n + 1] := l_history[l];
                    END IF;',
        'IF r.own_n IS NOT NULL THEN
                        l_history[l] := l_history[l] + 1; l_changed[l] := true; v_numbers[r.n + 1] := l_history[l];
                    END IF;
                    IF r.own_work_n IS NOT NULL AND w IS NOT NULL THEN
                        l_history[w] := l_history[w] + 1; l_changed[w] := true; v_works[r.n + 1] := l_history[w];
                    END IF;',

        'OR r.facts_version <> l_version[l] OR r.history_version <> l_history[l]) THEN',
        'OR r.facts_version <> l_version[l] OR r.history_version <> l_history[l]
                    OR r.work_version IS NOT NULL AND r.work_version IS DISTINCT FROM l_history[w]) THEN',

        'OR r.facts_version <> l_version[l] OR r.history_version <> l_history[l] THEN',
        'OR r.facts_version <> l_version[l] OR r.history_version <> l_history[l]
                  OR r.work_version IS NOT NULL AND r.work_version IS DISTINCT FROM l_history[w] THEN',

        'l_history[l] := l_history[l] + 1; l_changed[l] := true; v_numbers[r.n + 1] := l_history[l];
                    END IF;
                END IF;
            END IF;
            v_any',
        'l_history[l] := l_history[l] + 1; l_changed[l] := true; v_numbers[r.n + 1] := l_history[l];
                    END IF;
                    IF r.counts THEN
                        l_history[w] := l_history[w] + 1; l_changed[w] := true; v_works[r.n + 1] := l_history[w];
                    END IF;
                END IF;
            END IF;
            v_any',

        'tainted, history_n, remembered)
        SELECT',
        'tainted, history_n, remembered, work, work_n)
        SELECT',

        'v_numbers[q.n + 1], q.remembered
        FROM jsonb_to_recordset(p_requests) AS q(',
        'v_numbers[q.n + 1], q.remembered, q.work, v_works[q.n + 1]
        FROM jsonb_to_recordset(p_requests) AS q(
                 work text,',

        'history_n = coalesce(v_numbers[q.n + 1], c.history_n)',
        'history_n = coalesce(v_numbers[q.n + 1], c.history_n), work_n = coalesce(v_works[q.n + 1], c.work_n)'
    ];
BEGIN
    FOR i IN 1 .. cardinality(v_places) BY 2 LOOP
        IF (length(v_text) - length(replace(v_text, v_places[i], ''))) <> length(v_places[i]) THEN
            RAISE EXCEPTION 'commit_requests is not as this migration knows it, at place %', (i + 1) / 2;
        END IF;
        v_text := replace(v_text, v_places[i], v_places[i + 1]);
    END LOOP;
    EXECUTE v_text;
END $patch$;

-- Whether the past of a work is still the one that was read, null for none; it stays so until the transaction ends.
CREATE FUNCTION is_past_of_work(p_lineage text, p_work text, p_version bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF p_version IS NULL THEN
        RETURN true;
    END IF;
    PERFORM FROM epoch WHERE id = 1 FOR SHARE;
    PERFORM FROM lineage l WHERE l.lineage_id IN (p_lineage, p_work) ORDER BY l.lineage_id FOR NO KEY UPDATE;
    RETURN EXISTS (SELECT FROM lineage l WHERE l.lineage_id = p_work AND l.history_version = p_version);
END $$;
REVOKE EXECUTE ON FUNCTION is_past_of_work FROM PUBLIC;
GRANT EXECUTE ON FUNCTION is_past_of_work TO interlock_app;
