-- name: live_tick
-- From when on events may still come to light that nobody has seen: transactions that are under way began no earlier. With the
-- number of the last change to the control plane.
SELECT (extract(epoch FROM greatest(
           least(clock_timestamp(), (SELECT min(a.xact_start) FROM pg_stat_activity a
                                     WHERE a.datname = current_database() AND a.pid <> pg_backend_pid())),
           clock_timestamp() - $1::int * interval '1 second')) * 1000000)::bigint AS horizon_us,
       (SELECT head_seq FROM chain WHERE chain_id = 'control') AS control_seq

-- name: live_moved
-- Of the calls that were proposed since a time, newest first, and of those that are watched: the ones with events beyond those
-- that are known.
WITH known AS (SELECT * FROM unnest($2::text[], $3::bigint[]) AS k(call_id, seq)),
     fresh AS (SELECT e.call_id, max(e.at_us) AS at_us FROM event e WHERE e.kind = 'call.proposed' AND e.at_us >= $1
               GROUP BY e.call_id ORDER BY 2 DESC LIMIT $4),
     wanted AS (SELECT call_id FROM fresh UNION SELECT call_id FROM known)
SELECT w.call_id FROM wanted w JOIN event e ON e.call_id = w.call_id AND e.call_id <> '' LEFT JOIN known k ON k.call_id = w.call_id
GROUP BY w.call_id, k.seq HAVING max(e.seq) > coalesce(k.seq, 0)

-- name: live_newest
-- The calls that were proposed last, of a tenant and for a user (all when empty), with texts that occur in the names of agent and user.
SELECT e.call_id FROM event e JOIN session s ON s.session_id = e.chain_id
WHERE e.kind = 'call.proposed' AND ($1 = '' OR s.tenant = $1) AND ($5 = '' OR s.user_id = $5)
  AND position($2 IN lower(s.agent)) > 0 AND position($3 IN lower(s.user_id)) > 0
ORDER BY e.at_us DESC LIMIT $4

-- name: live_waiting
-- The calls whose questions to people are open.
SELECT call_id FROM approval WHERE state = 'open' AND expires_at > clock_timestamp() ORDER BY created_at DESC LIMIT $1

-- name: call_steps
-- The steps of some calls in their order, with what a list shows of each: never facts nor outputs. JSON is taken apart as text:
-- numbers stand there as they were sent.
SELECT e.call_id, e.chain_id AS session_id, e.seq, e.kind, e.at_us, s.tenant, s.environment, s.agent, s.user_id, s.task,
       CASE e.kind
           WHEN 'call.proposed' THEN json_build_object('operation', j.body -> 'operation',
                                                       'arguments', left((j.body -> 'arguments')::text, $2))::text
           WHEN 'call.decided' THEN (j.body -> 'decision')::text
           WHEN 'call.settled' THEN json_build_object('state', j.body -> 'state', 'took_us', j.body -> 'took_us',
                                                      'detail', j.body -> 'detail', 'code', j.body -> 'code')::text
           WHEN 'resource.read' THEN NULL
           ELSE b.body END AS said
FROM event e JOIN session s ON s.session_id = e.chain_id
LEFT JOIN event_body b USING (chain_id, seq) LEFT JOIN LATERAL (SELECT readable_json(b.body) AS body) j ON true
WHERE e.call_id = ANY ($1) AND e.call_id <> ''
ORDER BY e.call_id, e.chain_id, e.seq
