-- name: register_client
-- Register a client, unless too many came lately.
INSERT INTO oauth_client (client_id, environment, name, redirect_uris)
SELECT $1, $2, $3, $4 WHERE (
    SELECT count(*) FROM oauth_client WHERE environment = $2 AND registered_at > clock_timestamp() - interval '1 minute'
) < $5 AND (SELECT count(*) FROM oauth_client WHERE environment = $2) < $6 RETURNING client_id

-- name: oauth_client
-- A registered client.
SELECT client_id, name, redirect_uris, agent FROM oauth_client WHERE client_id = $1 AND environment = $2

-- name: bind_client
-- Bind a client to an agent for good; no row when it is bound to another.
UPDATE oauth_client SET agent = $3, used_at = clock_timestamp()
WHERE client_id = $1 AND environment = $2 AND agent IN ('', $3) RETURNING client_id

-- name: save_code
-- Keep what a person agreed to until the client fetches it.
INSERT INTO login_code (digest, kind, login_id, environment, client_id, state, tenant, user_id, agent, task,
                        redirect_uri, challenge, resource, expires_at)
VALUES ($1, 'code', $2, $3, $4, 'approved', $5, $6, $7, $8, $9, $10, $11, clock_timestamp() + make_interval(secs => $12))

-- name: ask_device
-- Keep a device's question until a person answers, unless too many are open; no row then, or when the user code is taken.
INSERT INTO login_code (digest, kind, login_id, environment, client_id, state, user_digest, asked_as, asked_from, pause_s, expires_at)
SELECT $1, 'device', $2, $3, $4, 'waiting', $5, $6, $7, $8, clock_timestamp() + make_interval(secs => $9)
WHERE (SELECT count(*) FROM login_code
       WHERE environment = $3 AND kind = 'device' AND state = 'waiting' AND expires_at > clock_timestamp()) < $10
ON CONFLICT DO NOTHING RETURNING login_id

-- name: find_device
-- What waits under a user code.
SELECT client_id, asked_as, asked_from, (extract(epoch FROM created_at) * 1000000)::bigint AS asked_at_us FROM login_code
WHERE user_digest = $1 AND environment = $2 AND state = 'waiting' AND expires_at > clock_timestamp()

-- name: answer_device
-- Answer what waits under a user code; of several answers the first one counts.
UPDATE login_code SET state = CASE WHEN $3 THEN 'approved' ELSE 'denied' END, tenant = $4, user_id = $5, agent = $6, task = $7
WHERE user_digest = $1 AND environment = $2 AND state = 'waiting' AND expires_at > clock_timestamp() RETURNING login_id

-- name: login_of_code
-- Which login a code is for.
SELECT login_id FROM login_code WHERE digest = $1 AND environment = $2

-- name: fetch_code
-- Fetch what a person agreed to, once.
SELECT * FROM fetch_code($1, $2, $3, $4, $5, $6, $7, $8)

-- name: spend_proof
-- Use a one-time proof; no row when it was used before.
INSERT INTO spent_proof (digest, expires_at) VALUES ($1, to_timestamp($2::bigint)) ON CONFLICT DO NOTHING RETURNING digest

-- name: start_login
-- Begin a login with its first key.
SELECT start_login($1, $2, $3, $4, $5, $6, $7, $8, to_timestamp($9::float8 / 1000000), $10, $11, $12, $13, $14)

-- name: login_of_key
-- The login that a key opens, spent keys and ended logins included.
SELECT l.login_id, l.client_id, l.tenant, l.user_id, l.agent, l.task, l.session_id,
       (extract(epoch FROM l.expires_at) * 1000000)::bigint AS expires_at_us,
       l.ended_at IS NULL AND l.expires_at > clock_timestamp() AND k.spent_at IS NULL AS live
FROM login_key k JOIN login l USING (login_id) WHERE k.digest = $1 AND l.environment = $2

-- name: login_is_live
-- Whether a login goes on.
SELECT true FROM login WHERE login_id = $1 AND environment = $2 AND ended_at IS NULL AND expires_at > clock_timestamp()

-- name: rotate_login
-- Change a refresh token for the next.
SELECT rotate_login($1, $2, $3, $4, $5, $6, $7, $8)

-- name: end_login
-- End a login and the session it holds.
SELECT end_login($1, $2, $3, $4, $5, $6)

-- name: note_typed_code
-- Note that a person typed a user code.
INSERT INTO typed_code (environment, tenant, user_id) VALUES ($1, $2, $3)

-- name: typed_codes
-- How many user codes a person has typed lately.
SELECT count(*)::int FROM typed_code
WHERE environment = $1 AND tenant = $2 AND user_id = $3 AND at > clock_timestamp() - make_interval(secs => $4)

-- name: forget_logins
-- Forget what is over.
SELECT forget_logins()
