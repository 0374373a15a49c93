-- The ledger: chains of events that nobody can edit, each linked to the one before, and the heads of them that were signed.

-- A chain of events: a session's, or `control`, with its head.
CREATE TABLE chain (
    chain_id   text PRIMARY KEY,
    head_seq   bigint NOT NULL DEFAULT 0,
    head_link  bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex')
) WITH (fillfactor = 50);
INSERT INTO chain (chain_id) VALUES ('control');

-- Times that are hashed are bigints (microseconds since the epoch); all others in the database are timestamptz.
CREATE TABLE event (
    chain_id    text NOT NULL,
    seq         bigint NOT NULL,
    kind        text NOT NULL,
    at_us       bigint NOT NULL,
    call_id     text NOT NULL,
    commitment  bytea NOT NULL CHECK (length(commitment) = 32),
    link        bytea NOT NULL CHECK (length(link) = 32),
    PRIMARY KEY (chain_id, seq)
);
CREATE INDEX event_by_call ON event (call_id, chain_id, seq);
-- Calls are searched newest first.
CREATE INDEX event_by_time ON event (at_us, call_id) WHERE kind = 'call.proposed';

-- Bodies stand apart, so that one may be forgotten without breaking the chain.
CREATE TABLE event_body (
    chain_id  text NOT NULL,
    seq       bigint NOT NULL,
    salt      bytea NOT NULL,
    body      text NOT NULL,
    PRIMARY KEY (chain_id, seq)
);

-- What the ledger's key has signed of the heads of all chains.
CREATE TABLE signed_head (
    n          bigint PRIMARY KEY,
    body       text NOT NULL,
    key_id     text NOT NULL,
    signature  bytea NOT NULL
);

-- How far each chain has been signed; only a reminder of where to go on, believed by nobody.
CREATE TABLE signed_chain (
    chain_id  text PRIMARY KEY,
    seq       bigint NOT NULL
);

-- INVARIANT: events are never edited, whoever asks.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only: % on % is refused', TG_OP, TG_TABLE_NAME;
END $$;
CREATE TRIGGER event_is_append_only BEFORE UPDATE OR DELETE ON event FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER event_is_not_truncated BEFORE TRUNCATE ON event FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER event_body_is_not_edited BEFORE UPDATE ON event_body FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER event_body_is_not_truncated BEFORE TRUNCATE ON event_body FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER signed_head_is_append_only BEFORE UPDATE OR DELETE ON signed_head FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Append events in the given order: number them, date them, link them, and move the heads of their chains.
-- The caller holds the lock that serialises each chain (the lineage's row, or the epoch row for `control`).
CREATE FUNCTION append_events(
    p_chain text[], p_kind text[], p_call text[], p_body text[], p_salt bytea[], p_commitment bytea[]
) RETURNS void LANGUAGE plpgsql
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_now       bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    v_event     record;
    v_chain     text := NULL;
    v_seq       bigint;
    v_link      bytea;
    v_chains    text[] := '{}';
    v_seqs      bigint[] := '{}';
    v_links     bytea[] := '{}';
    v_ords      bigint[] := '{}';
    v_ends      text[] := '{}';
    v_end_seqs  bigint[] := '{}';
    v_end_links bytea[] := '{}';
BEGIN
    FOR v_event IN
        SELECT chain_id, kind, call_id, commitment, ord
        FROM unnest(p_chain, p_kind, p_call, p_commitment) WITH ORDINALITY AS e(chain_id, kind, call_id, commitment, ord)
        ORDER BY chain_id, ord
    LOOP
        IF v_chain IS DISTINCT FROM v_event.chain_id THEN
            IF v_chain IS NOT NULL THEN
                v_ends := v_ends || v_chain; v_end_seqs := v_end_seqs || v_seq; v_end_links := v_end_links || v_link;
            END IF;
            v_chain := v_event.chain_id;
            SELECT head_seq, head_link INTO STRICT v_seq, v_link FROM chain WHERE chain_id = v_chain FOR NO KEY UPDATE;
        END IF;
        v_seq := v_seq + 1;
        v_link := sha256(v_link || convert_to(
            'interlock/event/1' || E'\n' || v_chain || E'\n' || v_seq || E'\n' || v_event.kind || E'\n' || v_now || E'\n'
            || v_event.call_id || E'\n', 'UTF8') || v_event.commitment);
        v_chains := v_chains || v_chain; v_seqs := v_seqs || v_seq; v_links := v_links || v_link; v_ords := v_ords || v_event.ord;
    END LOOP;
    IF v_chain IS NULL THEN
        RETURN;
    END IF;
    v_ends := v_ends || v_chain; v_end_seqs := v_end_seqs || v_seq; v_end_links := v_end_links || v_link;
    INSERT INTO event (chain_id, seq, kind, at_us, call_id, commitment, link)
    SELECT n.chain_id, n.seq, p_kind[n.ord], v_now, p_call[n.ord], p_commitment[n.ord], n.link
    FROM unnest(v_chains, v_seqs, v_links, v_ords) AS n(chain_id, seq, link, ord);
    INSERT INTO event_body (chain_id, seq, salt, body)
    SELECT n.chain_id, n.seq, p_salt[n.ord], p_body[n.ord]
    FROM unnest(v_chains, v_seqs, v_ords) AS n(chain_id, seq, ord);
    UPDATE chain SET head_seq = h.seq, head_link = h.link
    FROM unnest(v_ends, v_end_seqs, v_end_links) AS h(chain_id, seq, link)
    WHERE chain.chain_id = h.chain_id;
END $$;

-- Append to a chain that belongs to no session, which is made when it is missing. Never `control`, whose order is the epoch row's.
CREATE FUNCTION append_to_chain(
    p_chain text, p_kind text[], p_call text[], p_body text[], p_salt bytea[], p_commitment bytea[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_chain NOT LIKE '%:%' THEN
        RAISE EXCEPTION 'only chains with a colon in their name are appended to here, not %', p_chain;
    END IF;
    INSERT INTO chain (chain_id) VALUES (p_chain) ON CONFLICT (chain_id) DO NOTHING;
    PERFORM append_events(array_fill(p_chain, ARRAY[cardinality(p_kind)]), p_kind, p_call, p_body, p_salt, p_commitment);
END $$;

-- Commit to a body as the ledger's writer does: HMAC-SHA256 (RFC 2104) keyed by 16 bytes of salt.
CREATE FUNCTION commitment_of(p_salt bytea, p_body text) RETURNS bytea LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_inner bytea := decode(repeat('36', 64), 'hex');
    v_outer bytea := decode(repeat('5c', 64), 'hex');
BEGIN
    FOR i IN 0 .. length(p_salt) - 1 LOOP
        v_inner := set_byte(v_inner, i, get_byte(v_inner, i) # get_byte(p_salt, i));
        v_outer := set_byte(v_outer, i, get_byte(v_outer, i) # get_byte(p_salt, i));
    END LOOP;
    RETURN sha256(v_outer || sha256(v_inner || convert_to(p_body, 'UTF8')));
END $$;

-- The body of an event as JSON whose parts can be read. A zero and halves of characters have no place in a text of Postgres: reading
-- any part of a document that writes one would fail. They are read as U+FFFD. The record itself is not touched.
CREATE FUNCTION readable_json(p_body text) RETURNS json LANGUAGE sql IMMUTABLE AS $$
    SELECT (CASE WHEN position('\u' IN p_body) = 0 THEN p_body
                 ELSE regexp_replace(p_body, '(?<!\\)((?:\\\\)*)\\u(?:0000|[dD][89a-fA-F][0-9a-fA-F]{2})', '\1\\ufffd', 'g')
            END)::json
$$;
