-- Labels of lineages, and whom they reach.

-- name: labelled_less
-- The lineages at the same work, this one among them, that are labelled less than this.
SELECT labelled_less($1, $2, $3, $4) AS lineages

-- name: spread_labels
-- Label them so, with an event, if they are still the same ones.
SELECT spread_labels($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)

-- name: taint_of
-- Whether a lineage is tainted, by which call, and its live sessions.
SELECT tainted, tainted_by, live_sessions(lineage_id) AS sessions FROM lineage WHERE lineage_id = $1

-- name: start_fresh
-- End a lineage's sessions and take its taint away, with an event, if all is still as it was.
SELECT start_fresh($1, $2, $3, $4, $5, $6, $7)
