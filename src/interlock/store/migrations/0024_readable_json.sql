-- Bodies of events taken apart by the database, whatever texts tools and callers put into them.

-- The body of an event as JSON whose parts can be read. A zero and halves of characters have no place in a text of Postgres: reading
-- any part of a document that writes one would fail. They are read as U+FFFD. The record itself is not touched.
CREATE FUNCTION readable_json(p_body text) RETURNS json LANGUAGE sql IMMUTABLE AS $$
    SELECT (CASE WHEN position('\u' IN p_body) = 0 THEN p_body
                 ELSE regexp_replace(p_body, '(?<!\\)((?:\\\\)*)\\u(?:0000|[dD][89a-fA-F][0-9a-fA-F]{2})', '\1\\ufffd', 'g')
            END)::json
$$;
REVOKE EXECUTE ON FUNCTION readable_json FROM PUBLIC;
GRANT EXECUTE ON FUNCTION readable_json TO interlock_app, interlock_auditor;
