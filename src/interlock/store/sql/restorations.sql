-- name: database_id
-- Which database this is.
SELECT database_id::text AS database_id FROM database_identity WHERE id = 1

-- name: missing_claims
-- Which of these claims the database does not have.
SELECT w.claim_id FROM unnest($1::text[]) AS w(claim_id) WHERE NOT EXISTS (SELECT FROM claim c WHERE c.claim_id = w.claim_id)

-- name: has_signed_head
-- Whether a signed head that was witnessed is there.
SELECT EXISTS (SELECT FROM signed_head WHERE n = $1 AND signature = $2) AS there

-- name: signatures
-- The signatures of some signed heads.
SELECT n, signature FROM signed_head WHERE n = ANY ($1::bigint[])

-- name: notice_restored
-- Note that this database was restored to an earlier point.
SELECT * FROM notice_restored($1)

-- name: restoration
-- The last restore that was noticed.
SELECT n, why, reached_us, (extract(epoch FROM noticed_at) * 1000000)::bigint AS noticed_us, reconciled_at IS NOT NULL AS reconciled,
       complete, recovered, resumed_at IS NOT NULL AS resumed, resumed_by,
       (extract(epoch FROM guarded_until) * 1000000)::bigint AS guarded_until_us
FROM restoration ORDER BY n DESC LIMIT 1

-- name: control_moves
-- The control epoch, the last event of the control chain, how many restores were noticed, and whether one is open.
SELECT e.control AS epoch, (SELECT head_seq FROM chain WHERE chain_id = 'control') AS seq,
       (SELECT coalesce(max(n), 0) FROM restoration) AS restores,
       EXISTS (SELECT FROM restoration WHERE resumed_at IS NULL) AS open
FROM epoch e WHERE e.id = 1

-- name: resumed_reports
-- What was told of the marks when a restore was made good that a person has resumed.
SELECT recovered FROM restoration WHERE resumed_at IS NOT NULL

-- name: standing_controls
-- What is stopped, worried and revoked now, at most $1 of each; what machinery finds out again by itself is not among it.
SELECT e.control AS epoch, e.release_digest, (SELECT head_seq FROM chain WHERE chain_id = 'control') AS seq,
    (SELECT coalesce(json_agg(x), '[]')::text FROM (
        SELECT scope, halted, reason, by_user AS by, posture, posture_reason, posture_by FROM control
        WHERE (halted OR posture <> 'normal') AND scope <> 'restored' AND scope NOT LIKE 'quarantine:%'
        ORDER BY changed_at DESC LIMIT $1) x) AS stops,
    (SELECT coalesce(json_agg(x), '[]')::text FROM (
        SELECT lineage_id, tenant, environment, agent, user_id AS user, posture, posture_reason AS reason, posture_by AS by
        FROM lineage WHERE posture <> 'normal' ORDER BY lineage_id LIMIT $1) x) AS worries,
    (SELECT coalesce(json_agg(x), '[]')::text FROM (
        SELECT environment, kind AS target, tenant, name, before_us, by_user AS by, reason FROM revocation
        WHERE kind <> 'session' AND before_us > (extract(epoch FROM clock_timestamp()) - $2) * 1000000
        ORDER BY n DESC LIMIT $1) x) AS revoked
FROM epoch e WHERE e.id = 1

-- name: recover_control
-- Stop a scope again, or make it as worried again.
SELECT recover_control($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) AS changed

-- name: recover_posture
-- Make a lineage as worried again.
SELECT recover_posture($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) AS changed

-- name: recover_revocation
-- Refuse again what was issued before a time.
SELECT recover_revocation($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) AS changed

-- name: recover_claim
-- Put a call that the marks tell of back on record, with what it took of budgets: shared ones are counted anew by the next draw.
WITH r AS MATERIALIZED (
    SELECT recover_claim($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24,
                         $25, $26, $27, $28, $29) AS became
), taken AS MATERIALIZED (
    SELECT c.*, budget_until(c.window_s, to_timestamp($24::float8 / 1000000)) AS until
    FROM r CROSS JOIN unnest($30::text[], $31::text[], $32::text[], $33::bigint[], $34::int[], $35::boolean[], $36::bigint[])
         AS c(account, name, about, cap, window_s, shared, amount)
    WHERE r.became = 'recovered' AND NOT $23
), slices AS (
    UPDATE budget b SET size = 0 FROM taken t WHERE t.shared AND b.account = t.account AND b.holder <> ''
), pools AS (
    INSERT INTO budget AS b (account, holder, name, tenant, environment, about, shared, cap, window_s, size)
    SELECT account, '', name, $5, $6, about, shared, cap, window_s, CASE WHEN shared THEN cap ELSE 0 END FROM taken
    ON CONFLICT (account, holder) DO UPDATE SET size = CASE WHEN b.shared THEN b.cap ELSE b.size END
), restored AS (
    INSERT INTO budget (account, holder, name, tenant, environment, about, shared, cap, window_s)
    SELECT account, 'restored', name, $5, $6, about, true, cap, window_s FROM taken WHERE shared
    ON CONFLICT DO NOTHING
), used AS (
    INSERT INTO budget_use AS u (account, holder, until, amount)
    SELECT account, CASE WHEN shared THEN 'restored' ELSE '' END, until, amount FROM taken
    ON CONFLICT (account, holder, until) DO UPDATE SET amount = u.amount + excluded.amount
)
SELECT became FROM r

-- name: note_reconciled
-- Note that the marks were read.
SELECT note_reconciled($1, $2, $3, $4, $5, $6) AS noted

-- name: resume_restored
-- Let writes go on after a restore.
SELECT * FROM resume_restored($1, $2, $3, $4, $5, $6, $7)

-- name: open_doubts
-- Calls whose end is not known: how many machinery still looks into, and how many ask a person.
SELECT count(*) FILTER (WHERE asks_people = '') AS looked_into, count(*) FILTER (WHERE asks_people <> '') AS asking
FROM claim WHERE state = 'in_doubt'
