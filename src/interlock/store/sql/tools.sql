-- Tools: what is quarantined, what was accepted, how servers answer, how operations are used.

-- name: quarantine_operation
-- Stop an operation that changed upstream.
SELECT quarantine_operation($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)

-- name: accept_operation
-- Let it run again as it is listed now.
SELECT accept_operation($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: quarantined
-- What is quarantined in an environment.
SELECT operation, reviewed, pin, detail, findings, (extract(epoch FROM noticed_at) * 1000000)::bigint AS noticed_at_us
FROM quarantine WHERE environment = $1 ORDER BY operation

-- name: accepted_pins
-- The listings that people accepted in an environment besides the reviewed ones.
SELECT operation, reviewed, pin FROM accepted_pin WHERE environment = $1

-- name: note_health
-- Keep what came of asking a server what it lists.
INSERT INTO tool_health AS h (environment, tool, asked_at, listed_at, error, vanished, unpinned, new)
VALUES ($1, $2, clock_timestamp(), CASE WHEN $3 = '' THEN clock_timestamp() END, $3, $4, $5, $6)
ON CONFLICT (environment, tool) DO UPDATE
SET asked_at = excluded.asked_at, listed_at = coalesce(excluded.listed_at, h.listed_at), error = excluded.error,
    vanished = CASE WHEN excluded.error = '' THEN excluded.vanished ELSE h.vanished END,
    unpinned = CASE WHEN excluded.error = '' THEN excluded.unpinned ELSE h.unpinned END,
    new = CASE WHEN excluded.error = '' THEN excluded.new ELSE h.new END

-- name: tool_health
-- How the servers of an environment answered last.
SELECT tool, (extract(epoch FROM asked_at) * 1000000)::bigint AS asked_at_us,
       (extract(epoch FROM listed_at) * 1000000)::bigint AS listed_at_us, error, vanished, unpinned, new
FROM tool_health WHERE environment = $1 ORDER BY tool

-- name: operation_use
-- How operations of an environment were used in the last week.
SELECT operation, count(*) AS calls, count(*) FILTER (WHERE state = 'failed') AS failed,
       count(*) FILTER (WHERE state = 'in_doubt') AS in_doubt,
       (extract(epoch FROM max(claimed_at)) * 1000000)::bigint AS last_at_us
FROM claim WHERE claimed_at > clock_timestamp() - interval '7 days' AND $2 = ANY (scopes) AND ($1 = '' OR $1 = ANY (scopes))
GROUP BY operation
