-- name: commit_plain
-- Claim, record and settle for many callers at once when nothing about any of them is unusual; null, and nothing done, when something is.
SELECT commit_plain(
    $1, $2, $3, $4, $5::text::text[], $6::text::bigint[], $7::text::boolean[], $8::text::boolean[], $9::text::int[],
    $10::text::text[], $11::text::text[], $12::text::boolean[], $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
    $24, $25, $26, $27, $28, $29, $30, $31, $32, $33::text::text[], $34, $35, $36, $37, $38, $39, $40::text::text[],
    $41::text::int[], $42::text::text[], $43, $44, $45, $46, $47, $48, $49, $50, $51, $52, $53::text::int[], $54, $55,
    $56, $57, $58::text::text[], $59::text::text[], $60::text::bytea[], $61::text::bytea[], $62)

-- name: commit_requests
-- Claim, record and settle for many callers in one transaction, with what enters contexts; one answer a request, or one for all.
SELECT * FROM commit_requests(
    $1, $2::text::jsonb, $3::text::text[], $4::text::text[], $5, $6::text::text[], $7::text::text[],
    $8::text::text[], $9, $10, $11, $12, $13, $14::text::text[], $15::text::text[], $16::text::bytea[],
    $17::text::bigint[], $18::text::boolean[], $19::text::int[], $20::text::int[], $21, $22, $23::text::text[],
    $24::text::text[], $25::text::text[], $26::text::bigint[], $27::text::int[], $28::text::bigint[],
    $29::text::int[], $30::text::int[], $31::text::bigint[], $32::text::boolean[], $33::text::int[],
    $34::text::text[], $35::text::text[], $36, $37::text::bytea[], $38::text::bytea[], $39::text::int[], $40::text::int[], $41::text::int[],
    $42::text::int[], $43::text::text[], $44::text::text[], $45::text::boolean[], $46::text::int[], $47)

-- name: standing
-- Where a session's lineage stands, with the epochs and the release in force; no row when the session has ended.
SELECT e.control, e.release, e.revocation, e.release_digest, l.facts_version, l.posture, l.tainted, l.confidentiality,
       l.history_version, l.tainted_by, l.confidential_by
FROM session s JOIN lineage l USING (lineage_id) CROSS JOIN epoch e
WHERE s.session_id = $1 AND s.lineage_id = $2 AND NOT s.revoked AND s.expires_at > clock_timestamp()

-- name: sessions_over
-- Which of these sessions may do nothing any more: those that have ended, and those that a control or a posture stops in all they do.
SELECT w.session_id FROM unnest($1::text[], $2::text[]) AS w(session_id, lineage_id)
WHERE NOT EXISTS (
    SELECT FROM session s JOIN lineage l USING (lineage_id)
    WHERE s.session_id = w.session_id AND s.lineage_id = w.lineage_id AND NOT s.revoked AND s.expires_at > clock_timestamp()
      AND l.posture <> 'halted')
UNION
SELECT w.session_id FROM unnest($3::text[], $4::text[]) AS w(session_id, scope)
JOIN control c ON c.scope = w.scope AND (c.halted OR c.posture = 'halted')

-- name: session
-- A live session as it was opened.
SELECT session_id, tenant, environment, agent, user_id, task, roles, attributes,
       parents, parent_agents, parent_calls, run, operations, max_calls,
       (extract(epoch FROM expires_at) * 1000000)::bigint AS expires_at_us,
       (extract(epoch FROM opened_at) * 1000000)::bigint AS opened_at_us
FROM session WHERE session_id = $1 AND NOT revoked AND expires_at > clock_timestamp()

-- name: open_session
-- Open a session with its first event; false when the proofs it rests on were revoked.
SELECT open_proven_session($1, $2, $3, $4, $5, $6, $7, $8, $9, to_timestamp($10::float8 / 1000000), $11, $12, $13, $14, $15, $16)

-- name: open_sub_session
-- Hand a session down to another agent, unless its proof was revoked.
SELECT open_proven_sub_session($1, $2, $3, $4, $5, $6, to_timestamp($7::float8 / 1000000), $8, $9, $10, $11, $12, $13, $14, $15,
                               $16, $17, $18)

-- name: refresh_session
-- Let a session go on until a later time; false when it has ended or the proofs were revoked.
SELECT refresh_proven_session($1, to_timestamp($2::float8 / 1000000), $3, $4, $5, $6, $7, $8)

-- name: session_of_grant
-- The session of a grant, opened if there is none yet; no row when it was revoked.
SELECT * FROM session_of_grant($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, to_timestamp($11::float8 / 1000000), $12, $13, $14, $15,
                               $16, $17)

-- name: revoke
-- Refuse what was issued before now, and end the sessions that rest on it.
SELECT * FROM revoke($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)

-- name: person_revoked
-- Whether what was issued to a person then is refused by now.
SELECT proofs_revoked($1, $2, $3, $4, '', 0) AS revoked

-- name: agent_revoked
-- Whether what was issued to an agent then is refused by now.
SELECT proofs_revoked($1, '', '', 0, $2, $3) AS revoked

-- name: tenant_of_session
-- Whose a session of this environment is.
SELECT tenant FROM session WHERE session_id = $1 AND environment = $2

-- name: revoke_session
-- End a session before its time.
SELECT revoke_session($1)

-- name: change_control
-- Halt or resume a scope and list what was claimed before.
SELECT * FROM change_control($1, $2, $3, $4, $5, $6, $7, $8)

-- name: controls
-- Every control that has ever been set, halted ones first.
SELECT scope, halted, reason, by_user, posture, posture_by, posture_reason, (extract(epoch FROM changed_at) * 1000000)::bigint AS changed_at_us
FROM control ORDER BY halted DESC, scope

-- name: epochs
-- The epochs and the digest of the release in force.
SELECT control, release, revocation, release_digest FROM epoch WHERE id = 1

-- name: in_flight
-- How many calls are claimed and not settled, by operation.
SELECT operation, count(*) AS calls FROM claim WHERE state = 'claimed' GROUP BY operation ORDER BY operation

-- name: append_control
-- Append one event to the control chain.
SELECT append_control($1, $2, $3, $4)

-- name: save_release
-- Store a release; one that is stored already stays as it is.
INSERT INTO release (digest, name, files) VALUES ($1, $2, $3) ON CONFLICT (digest) DO NOTHING

-- name: release_files
-- The files of a stored release.
SELECT files FROM release WHERE digest = $1

-- name: activate_release
-- Put a stored release in force after the one that is expected to be; null when another is.
SELECT activate_release_after($1, $2, $3, $4, $5, $6, $7, $8)

-- name: save_proposal
-- Note who proposed a release and what its tests said; proposing twice changes nothing.
INSERT INTO proposal (digest, proposed_by, proposed_roles, proposed_in, tests_run, tests_failed) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT DO NOTHING

-- name: proposals
-- Who proposed a release, first to last.
SELECT proposed_by, proposed_roles, proposed_in, tests_run, tests_failed FROM proposal
WHERE digest = $1 ORDER BY proposed_at, proposed_by

-- name: previous_release
-- The release that was in force before the one that is now.
SELECT digest FROM activation WHERE digest <> (SELECT release_digest FROM epoch WHERE id = 1) ORDER BY epoch DESC LIMIT 1

-- name: was_in_force
-- Whether a release was in force before.
SELECT true FROM activation WHERE digest = $1 LIMIT 1

-- name: activations
-- Which releases were in force, newest first.
SELECT a.epoch, a.digest, r.name, a.activated_by, a.reason, (extract(epoch FROM a.activated_at) * 1000000)::bigint AS at_us
FROM activation a JOIN release r USING (digest) WHERE a.epoch < $1 ORDER BY a.epoch DESC LIMIT $2

-- name: lineage
-- One lineage as it stands.
SELECT lineage_id, tenant, environment, agent, user_id, posture, posture_by, posture_reason, tainted, confidentiality
FROM lineage WHERE lineage_id = $1

-- name: worried_lineages
-- Lineages whose posture is not normal.
SELECT lineage_id, tenant, environment, agent, user_id, posture, posture_by, posture_reason, tainted, confidentiality
FROM lineage WHERE posture <> 'normal' AND ($1 = '' OR tenant = $1) ORDER BY lineage_id LIMIT $2

-- name: less_worried_below
-- The lineages that act for this one now and are less worried than the posture, by id.
SELECT lineage_id FROM lineage WHERE lineage_id = ANY (lineages_below($1))
    AND array_position(ARRAY['normal', 'guarded', 'read_only', 'halted'], posture)
      < array_position(ARRAY['normal', 'guarded', 'read_only', 'halted'], $2::text) ORDER BY lineage_id

-- name: set_posture
-- Set the posture of a lineage, and raise those that act for it, if all is still as it was.
SELECT set_posture($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)

-- name: register_process
-- Announce a process that may hold claims.
INSERT INTO process (process_id, environment) VALUES ($1, $2)

-- name: heartbeat
-- Say that a process is alive and which release epoch it decides by.
UPDATE process SET seen_at = clock_timestamp(), release_epoch = greatest(release_epoch, $2) WHERE process_id = $1

-- name: leave
-- Say goodbye: what the process still holds is nobody's from now on.
DELETE FROM process WHERE process_id = $1

-- name: live_processes
-- The processes that were seen within the last ten seconds.
SELECT process_id, environment, release_epoch FROM process
WHERE seen_at > clock_timestamp() - interval '10 seconds' ORDER BY process_id

-- name: orphan_claims
-- Put claims in doubt whose process is gone or whose time is over.
SELECT * FROM orphan_claims($1, $2, $3, $4, $5)

-- name: claim_states
-- What became of some claims, and whether their owners may still settle them.
SELECT claim_id, state, owner_is_alive(process_id, settle_by, clock_timestamp()) AS owner_alive
FROM claim WHERE claim_id = ANY ($1)

-- name: count_refusals
-- Add to the counts of refused tokens.
INSERT INTO auth_refusal AS r (minute, environment, code, hint, count)
SELECT to_timestamp(minute_s), environment, code, hint, count
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::bigint[]) AS n(minute_s, environment, code, hint, count)
ON CONFLICT (minute, environment, code, hint) DO UPDATE SET count = r.count + excluded.count

-- name: refusals
-- Refused tokens of the last hour, by reason.
SELECT environment, code, sum(count)::bigint AS count FROM auth_refusal
WHERE minute > clock_timestamp() - interval '1 hour' GROUP BY environment, code ORDER BY environment, code

-- name: trace_events
-- The events of one call, or of one whole chain, in their order.
SELECT e.chain_id, e.seq, e.kind, e.at_us, e.call_id, b.body
FROM event e LEFT JOIN event_body b USING (chain_id, seq)
WHERE e.chain_id = $1 OR (e.call_id = $1 AND $1 <> '') ORDER BY e.chain_id, e.seq

-- name: forget_outcomes
-- Forget raw outcomes whose time for repeated calls is over.
SELECT forget_outcomes($1)

-- name: request_approval
-- Ask people, or find the question that is open already.
SELECT * FROM request_approval($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)

-- name: expire_approvals
-- End what nobody answered or used in time, on record.
SELECT expire_approvals($1)

-- name: answer_approval
-- Approve, deny or withdraw.
SELECT answer_approval($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)

-- name: approvals_for_call
-- What people have said about one call under one release; what was used still lifts a replay.
SELECT approval_id, tenant, environment, agent, user_id, lineage_id, session_id, call_id, task, operation, call_hash,
       release_digest, rule, role, policy_ids, arguments, show, evidence, say, evidence_digest,
       CASE WHEN a.state = 'open' AND a.expires_at <= clock_timestamp() THEN 'expired'
            WHEN a.state IN ('open', 'approved') AND a.release_digest <> (SELECT e.release_digest FROM epoch e) THEN 'outdated'
            WHEN a.state = 'approved' AND a.expires_at <= clock_timestamp() THEN 'expired'
            ELSE a.state END AS state,
       (extract(epoch FROM created_at) * 1000000)::bigint AS created_at_us,
       (extract(epoch FROM expires_at) * 1000000)::bigint AS expires_at_us,
       answered_by, (extract(epoch FROM answered_at) * 1000000)::bigint AS answered_at_us, note, used_by
FROM approval a
WHERE a.lineage_id = $1 AND a.call_hash = $2 AND a.release_digest = $3
  AND (a.state = 'used' OR (a.state IN ('approved', 'denied') AND a.expires_at > clock_timestamp()))
ORDER BY (a.state = 'approved') DESC, a.created_at DESC LIMIT 50

-- name: approval_states
-- Where some requests stand.
SELECT a.approval_id, CASE WHEN a.state = 'open' AND a.expires_at <= clock_timestamp() THEN 'expired' ELSE a.state END AS state
FROM approval a WHERE a.approval_id = ANY ($1)

-- name: approval
-- One request as it stands.
SELECT approval_id, tenant, environment, agent, user_id, lineage_id, session_id, call_id, task, operation, call_hash,
       release_digest, rule, role, policy_ids, arguments, show, evidence, say, evidence_digest,
       CASE WHEN a.state = 'open' AND a.expires_at <= clock_timestamp() THEN 'expired'
            WHEN a.state IN ('open', 'approved') AND a.release_digest <> (SELECT e.release_digest FROM epoch e) THEN 'outdated'
            WHEN a.state = 'approved' AND a.expires_at <= clock_timestamp() THEN 'expired'
            ELSE a.state END AS state,
       (extract(epoch FROM created_at) * 1000000)::bigint AS created_at_us,
       (extract(epoch FROM expires_at) * 1000000)::bigint AS expires_at_us,
       answered_by, (extract(epoch FROM answered_at) * 1000000)::bigint AS answered_at_us, note, used_by
FROM approval a WHERE a.approval_id = $1

-- name: approvals
-- Requests, newest first, that somebody may see.
SELECT * FROM (
SELECT approval_id, tenant, environment, agent, user_id, lineage_id, session_id, call_id, task, operation, call_hash,
       release_digest, rule, role, policy_ids, arguments, show, evidence, say, evidence_digest,
       CASE WHEN a.state = 'open' AND a.expires_at <= clock_timestamp() THEN 'expired'
            WHEN a.state IN ('open', 'approved') AND a.release_digest <> (SELECT e.release_digest FROM epoch e) THEN 'outdated'
            WHEN a.state = 'approved' AND a.expires_at <= clock_timestamp() THEN 'expired'
            ELSE a.state END AS state,
       (extract(epoch FROM created_at) * 1000000)::bigint AS created_at_us,
       (extract(epoch FROM expires_at) * 1000000)::bigint AS expires_at_us,
       answered_by, (extract(epoch FROM answered_at) * 1000000)::bigint AS answered_at_us, note, used_by
FROM approval a
WHERE ($1 = '' OR a.tenant = $1)
) v
WHERE ($2 = '' OR v.state = $2) AND ($5 OR v.role = ANY ($3) OR v.user_id = $4) AND v.created_at_us < $6
ORDER BY v.created_at_us DESC LIMIT $7

-- name: tell_person
-- Keep what a person's token says of them.
SELECT tell_person($1, $2, $3, $4)

-- name: begin_answer
-- Take a key for one request, or learn what became of it.
SELECT * FROM begin_answer($1, $2, $3, $4, $5, $6, $7)

-- name: keep_answer
-- Keep the first answer to a request.
UPDATE api_answer SET answer = $4 WHERE tenant = $1 AND user_id = $2 AND key = $3 AND answer IS NULL

-- name: give_back_answer
-- Free a key whose request changed nothing.
DELETE FROM api_answer WHERE tenant = $1 AND user_id = $2 AND key = $3 AND answer IS NULL

-- name: append_to_chain
-- Append events to a chain that belongs to no session.
SELECT append_to_chain($1, $2, $3, $4, $5, $6)

-- name: append_to_session
-- Append one event to the chain of a live session.
SELECT append_to_session($1, $2, $3, $4, $5, $6)

-- name: sessions
-- Sessions, newest first, live ones and those that have ended.
SELECT * FROM (
    SELECT s.session_id, s.lineage_id, s.tenant, s.environment, s.agent, s.user_id, s.task, s.roles, l.posture, l.tainted,
           (extract(epoch FROM s.opened_at) * 1000000)::bigint AS opened_at_us,
           (extract(epoch FROM s.expires_at) * 1000000)::bigint AS expires_at_us,
           NOT s.revoked AND s.expires_at > clock_timestamp() AS live, p.body AS plan
    FROM session s JOIN lineage l USING (lineage_id) LEFT JOIN plan p ON p.session_id = s.session_id
    WHERE ($1 = '' OR s.tenant = $1) AND ($2 = '' OR s.user_id = $2) AND ($3 = '' OR s.agent = $3)
      AND ($4 = '' OR s.task = $4) AND ($5 = '' OR s.session_id = $5)
) v
WHERE ($6 = '' OR v.live = ($6 = 'live')) AND (v.opened_at_us, v.session_id) < ($7, $8)
ORDER BY v.opened_at_us DESC, v.session_id DESC LIMIT $9

-- name: search_calls
-- Recorded calls between two times, newest first: what was asked, what was decided, how it ended.
SELECT * FROM (
    SELECT p.call_id, p.chain_id AS session_id, s.tenant, s.environment, s.agent, s.user_id, s.task, p.at_us,
           coalesce(readable_json(b.body) ->> 'operation', '') AS operation,
           coalesce(readable_json(d.body) -> 'decision' ->> 'type', '') AS decision,
           coalesce(readable_json(d.body) -> 'decision' ->> 'release_digest', '') AS release_digest,
           CASE e.kind WHEN 'call.settled' THEN coalesce(readable_json(e.body) ->> 'state', 'forgotten')
                       WHEN 'call.refused' THEN coalesce(readable_json(e.body) ->> 'outcome', 'forgotten')
                       WHEN 'call.replayed' THEN 'replayed'
                       WHEN 'claim.orphaned' THEN 'in_doubt'
                       WHEN 'claim.continued' THEN 'continued'
                       WHEN 'call.claimed' THEN 'running'
                       WHEN 'approval.requested' THEN 'waiting'
                       ELSE 'deciding' END AS outcome,
           coalesce(readable_json(e.body) ->> 'code', '') AS code
    FROM event p JOIN session s ON s.session_id = p.chain_id
    LEFT JOIN event_body b ON b.chain_id = p.chain_id AND b.seq = p.seq
    LEFT JOIN LATERAL (
        SELECT lb.body FROM event le LEFT JOIN event_body lb USING (chain_id, seq)
        WHERE le.call_id = p.call_id AND le.chain_id = p.chain_id AND le.kind = 'call.decided' ORDER BY le.seq DESC LIMIT 1
    ) d ON true
    LEFT JOIN LATERAL (
        SELECT le.kind, lb.body FROM event le LEFT JOIN event_body lb USING (chain_id, seq)
        WHERE le.call_id = p.call_id AND le.chain_id = p.chain_id
          AND le.kind IN ('call.settled', 'call.refused', 'call.replayed', 'claim.orphaned', 'claim.continued',
                          'call.claimed', 'approval.requested')
        ORDER BY le.seq DESC LIMIT 1
    ) e ON true
    WHERE p.kind = 'call.proposed' AND p.at_us >= $1 AND p.at_us < $2 AND (p.at_us, p.call_id) < ($3, $4)
      AND p.seq = (SELECT max(f.seq) FROM event f
                   WHERE f.call_id = p.call_id AND f.chain_id = p.chain_id AND f.kind = 'call.proposed')
      AND ($5 = '' OR s.tenant = $5) AND ($6 = '' OR s.user_id = $6) AND ($7 = '' OR s.agent = $7)
      AND ($8 = '' OR p.chain_id = $8) AND ($9 = '' OR p.call_id = $9)
) v
WHERE ($10 = '' OR v.operation = $10) AND ($11 = '' OR v.decision = $11) AND ($12 = '' OR v.outcome = $12)
ORDER BY v.at_us DESC, v.call_id DESC LIMIT $13

-- name: agent_use
-- How often each agent was used: its live sessions, and when its last one was opened.
SELECT agent, count(*) FILTER (WHERE NOT revoked AND expires_at > clock_timestamp()) AS live,
       (extract(epoch FROM max(opened_at)) * 1000000)::bigint AS last_opened_at_us
FROM session WHERE ($1 = '' OR tenant = $1) GROUP BY agent ORDER BY agent

-- name: latest_session
-- The newest live session of one lineage: what is known of its user now.
SELECT session_id FROM session WHERE lineage_id = $1 AND NOT revoked AND expires_at > clock_timestamp()
ORDER BY opened_at DESC LIMIT 1

-- name: room
-- Whether half a megabyte has room where the tables are, and may be written: it is spilled, and leaves nothing behind.
DO $$ BEGIN
    IF current_setting('transaction_read_only')::boolean THEN RAISE read_only_sql_transaction; END IF;
    PERFORM set_config('work_mem', '64kB', true);
    PERFORM count(*) FROM unnest(array_fill(repeat('x', 8000), ARRAY[64]));
END $$
