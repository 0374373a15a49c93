-- name: standing_figures
-- How much of what operators watch there is now: each count reads a partial index or a small table.
SELECT (SELECT count(*) FROM process WHERE seen_at > clock_timestamp() - interval '10 seconds') AS processes,
       (SELECT count(*) FROM control WHERE halted) AS stopped,
       (SELECT count(*) FROM approval WHERE state = 'open') AS approvals,
       (SELECT count(*) FROM claim WHERE state = 'in_doubt') AS doubts,
       (SELECT count(*) FROM claim WHERE state = 'claimed') AS unsettled
