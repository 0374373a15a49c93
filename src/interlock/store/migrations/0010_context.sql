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

GRANT SELECT ON context_item TO interlock_app, interlock_auditor;
GRANT INSERT, DELETE ON context_item TO interlock_app;

-- Add an item to a lineage's context; gives its number. Items are numbered under the lineage's lock, so that whoever has seen
-- number n has seen all before it.
CREATE FUNCTION add_context(
    p_lineage text, p_session text, p_source text, p_reference text, p_standings int[], p_tokens bytea[], p_is_complete boolean
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_n bigint;
BEGIN
    PERFORM FROM lineage WHERE lineage_id = p_lineage FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no lineage %', p_lineage;
    END IF;
    SELECT coalesce(max(n), 0) + 1 INTO v_n FROM context_item WHERE lineage_id = p_lineage;
    INSERT INTO context_item (lineage_id, n, session_id, source, reference, standings, tokens, is_complete)
    VALUES (p_lineage, v_n, p_session, p_source, p_reference, p_standings, p_tokens, p_is_complete);
    RETURN v_n;
END $$;
REVOKE EXECUTE ON FUNCTION add_context FROM PUBLIC;
GRANT EXECUTE ON FUNCTION add_context TO interlock_app;
