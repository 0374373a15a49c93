-- name: renew_lease
-- Renew a lease, acknowledge what was acted on, and learn what has happened since.
SELECT control, incarnation, settled, stops::text AS stops, postures::text AS postures FROM renew_lease($1, $2, $3, $4)

-- name: leases
-- Every lease that may still be held, with the control epoch it has acknowledged.
SELECT process_id, environment, renewals, acked_control, unsent FROM process WHERE lease_open ORDER BY process_id

-- name: close_lease
-- Note that a lease has run out, unless it was renewed since it was looked at.
UPDATE process SET lease_open = false WHERE process_id = $1 AND renewals = $2 AND lease_open

-- name: settle_incarnation
-- Note that a whole lease has passed in this life of the database.
UPDATE epoch SET settled = true WHERE incarnation = $1 AND NOT settled

-- name: claims_ended
-- What has become of some claims, with the code that they were settled with where they failed.
SELECT c.claim_id, c.state, CASE WHEN c.state = 'failed' THEN coalesce((
    SELECT readable_json(b.body) ->> 'code' FROM event e JOIN event_body b USING (chain_id, seq)
    WHERE e.call_id = c.call_id AND e.kind = 'call.settled' AND readable_json(b.body) ->> 'claim_id' = c.claim_id
    ORDER BY e.seq DESC LIMIT 1), '') ELSE '' END AS code
FROM claim c WHERE c.claim_id = ANY ($1)

-- name: session_tenant
-- Whose session this is or was.
SELECT tenant FROM session WHERE session_id = $1

-- name: scope_posture
-- The posture of a scope, with who set it; no row when nobody ever has.
SELECT posture, posture_by FROM control WHERE scope = $1

-- name: set_scope_posture
-- Set the posture of a scope, if it is still what it was.
SELECT set_scope_posture($1, $2, $3, $4, $5, $6, $7, $8, $9)
