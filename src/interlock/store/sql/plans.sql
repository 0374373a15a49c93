-- Sealed plans.

-- name: seal_plan
-- Seal a session's plan with its event, or say why not.
SELECT seal_plan($1, $2, $3, $4, $5, $6, $7, $8)

-- name: plan_of
-- The plan of a session, with the version of the facts of the lineage that asks.
SELECT p.digest, p.body, l.facts_version FROM lineage l LEFT JOIN plan p ON p.session_id = $1 WHERE l.lineage_id = $2
