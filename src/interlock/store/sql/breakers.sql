-- Breakers: what each process has counted lately, as the others read it.

-- name: known_key
-- A claim that counts as the same call: unsettled however old, or younger than the window.
SELECT true FROM idempotency k JOIN claim c USING (claim_id)
WHERE k.key = $1 AND (c.state IN ('claimed', 'in_doubt') OR c.claimed_at + $2 * interval '1 second' > clock_timestamp())

-- name: tell_breakers
-- Write down what this process has counted, and learn what all others of the environment have, within the last seconds.
SELECT operation, calls, failed FROM tell_breakers($1, $2, $3, $4, $5, $6, $7)

-- name: breakers
-- What the processes of an environment have counted lately, and which operations they let nothing through to.
SELECT b.process_id, b.operation, b.calls, b.failed, b.phase, b.waits_ms,
       (extract(epoch FROM clock_timestamp() - b.told_at) * 1000)::bigint AS age_ms
FROM breaker b WHERE b.environment = $1 AND b.told_at > clock_timestamp() - interval '10 seconds'
ORDER BY b.phase = 'closed', b.operation, b.process_id

-- name: forget_breakers
-- Forget what nobody reads any more.
DELETE FROM breaker WHERE told_at < clock_timestamp() - interval '1 minute'
