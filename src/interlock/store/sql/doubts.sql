-- name: doubts_to_look_into
-- Calls in doubt of an environment that no person was asked about, the oldest first.
SELECT c.*, s.tenant, s.environment, s.agent, s.user_id, d.proposed
FROM (
    SELECT claim_id, call_id, session_id, lineage_id, operation, release_digest, attempt, orphaned, looks, asks_people, conflict,
           state, key IS NOT NULL AS keyed, coalesce(outcome LIKE '{"awaits":%', false) AS awaits, (extract(epoch FROM claimed_at) * 1000000)::bigint AS claimed_at_us,
           (extract(epoch FROM settled_at) * 1000000)::bigint AS since_us
    FROM claim WHERE state = 'in_doubt' AND asks_people = '' ORDER BY settled_at LIMIT $2
) c
JOIN session s USING (session_id)
CROSS JOIN LATERAL (
    SELECT (SELECT b.body FROM event e JOIN event_body b USING (chain_id, seq)
            WHERE e.call_id = c.call_id AND e.chain_id = c.session_id AND e.kind = 'call.proposed'
              AND readable_json(b.body) ->> 'operation' = c.operation
            ORDER BY e.seq DESC LIMIT 1) AS proposed
) d
WHERE s.environment = $1

-- name: doubts
-- Calls in doubt, or settled against what a process said later, the newest first; of one tenant or of all, or one call.
SELECT c.*, s.tenant, s.environment, s.agent, s.user_id, d.proposed
FROM (
    SELECT claim_id, call_id, session_id, lineage_id, operation, release_digest, attempt, orphaned, looks, asks_people, conflict,
           state, key IS NOT NULL AS keyed, coalesce(outcome LIKE '{"awaits":%', false) AS awaits, (extract(epoch FROM claimed_at) * 1000000)::bigint AS claimed_at_us,
           (extract(epoch FROM settled_at) * 1000000)::bigint AS since_us
    FROM claim WHERE state = 'in_doubt' OR conflict <> ''
) c
JOIN session s USING (session_id)
CROSS JOIN LATERAL (
    SELECT (SELECT b.body FROM event e JOIN event_body b USING (chain_id, seq)
            WHERE e.call_id = c.call_id AND e.chain_id = c.session_id AND e.kind = 'call.proposed'
              AND readable_json(b.body) ->> 'operation' = c.operation
            ORDER BY e.seq DESC LIMIT 1) AS proposed
) d
WHERE s.environment = $1 AND ($2 = '' OR s.tenant = $2) AND ($3 = '' OR c.call_id = $3 OR c.claim_id = $3)
ORDER BY c.claimed_at_us DESC LIMIT $4

-- name: look_into_doubt
-- Take a call in doubt to look into for a while; no row when somebody else has it, or it is not in doubt any more.
UPDATE claim SET looks = looks + 1, looked_until = clock_timestamp() + $3 * interval '1 second'
WHERE claim_id = (
    SELECT claim_id FROM claim
    WHERE claim_id = $1 AND attempt = $2 AND state = 'in_doubt' AND asks_people = ''
      AND (looked_until IS NULL OR looked_until < clock_timestamp())
    FOR UPDATE SKIP LOCKED)
RETURNING looks

-- name: look_again_after
-- Leave a call in doubt alone for a while; `$3` looks came to nothing for a reason that is not the tool's.
UPDATE claim SET looked_until = clock_timestamp() + $2 * interval '1 second', looks = looks - $3
WHERE claim_id = $1 AND state = 'in_doubt'

-- name: attempt_again
-- Take a call in doubt up again with the next attempt number; null when it may not start.
SELECT attempt_again($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)

-- name: go_on
-- Take a call up again whose tool had asked something, with the answers; else what has become of it, or why it may not start.
SELECT * FROM go_on($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12,
    CASE WHEN is_past_of_work($5, $25, $26) THEN $13::bigint ELSE -1 END, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24)

-- name: ask_people
-- Leave a call in doubt to people.
SELECT ask_people($1, $2, $3, $4, $5, $6, $7)

-- name: note_conflict
-- Note what contradicts how a claim was settled.
SELECT note_conflict($1, $2, $3, $4, $5, $6)
