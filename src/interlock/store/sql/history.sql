-- The past calls of lineages and of what came of their sessions, as facts about the past are made of them.

-- name: history_whole
-- Calls of some operations that are young enough to matter, oldest first, with the version they add up to.
SELECT l.history_version, c.claim_id, c.call_id, c.session_id, c.lineage_id, c.operation, c.state, c.unsent, c.remembered,
       (extract(epoch FROM c.claimed_at) * 1000000)::bigint AS at_us
FROM lineage l LEFT JOIN LATERAL (
    SELECT * FROM (
        SELECT * FROM claim x
        WHERE x.lineage_id = l.lineage_id AND x.operation = ANY ($2) AND x.claimed_at >= clock_timestamp() - $3 * interval '1 second'
        UNION ALL
        SELECT * FROM claim x
        WHERE x.work = l.lineage_id AND x.lineage_id <> l.lineage_id AND x.operation = ANY ($2)
          AND x.claimed_at >= clock_timestamp() - $3 * interval '1 second'
    ) y ORDER BY y.claimed_at DESC LIMIT $4
) c ON true
WHERE l.lineage_id = $1 ORDER BY c.claimed_at

-- name: history_after
-- Calls that changed after a version, with the version they add up to.
SELECT l.history_version, c.claim_id, c.call_id, c.session_id, c.lineage_id, c.operation, c.state, c.unsent, c.remembered,
       (extract(epoch FROM c.claimed_at) * 1000000)::bigint AS at_us
FROM lineage l LEFT JOIN LATERAL (
    SELECT * FROM (
        SELECT x.*, x.history_n AS n FROM claim x WHERE x.lineage_id = l.lineage_id AND x.history_n > $2
        UNION ALL
        SELECT x.*, x.work_n AS n FROM claim x WHERE x.work = l.lineage_id AND x.lineage_id <> l.lineage_id AND x.work_n > $2
    ) y ORDER BY y.n LIMIT $3
) c ON true
WHERE l.lineage_id = $1
