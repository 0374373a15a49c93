-- What has entered contexts.

-- name: add_context
-- Add items to what has entered contexts; their numbers, in the given order.
SELECT add_context($1, $2, $3, $4, $5, $6, $7, $8) AS numbers

-- name: context_after
-- The items of a lineage's context that came after one that is known, a page of them in order.
SELECT n, session_id, source, reference, standings, tokens, is_complete
FROM context_item WHERE lineage_id = $1 AND n > $2 ORDER BY n LIMIT $3
