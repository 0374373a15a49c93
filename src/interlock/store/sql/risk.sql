-- name: note_risk
-- Note signals of a lineage with their event; gives all that count.
SELECT kind, subject, score FROM note_risk($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)

-- name: habits
-- What an agent of a tenant usually does.
SELECT feature, seen FROM agent_habit WHERE environment = $1 AND tenant = $2 AND agent = $3 LIMIT $4

-- name: add_habits
-- Count what agents have done.
INSERT INTO agent_habit (environment, tenant, agent, feature, seen)
SELECT $1, n.tenant, n.agent, n.feature, n.seen
FROM unnest($2::text[], $3::text[], $4::text[], $5::bigint[]) AS n(tenant, agent, feature, seen)
ON CONFLICT (environment, tenant, agent, feature) DO UPDATE SET seen = agent_habit.seen + excluded.seen
