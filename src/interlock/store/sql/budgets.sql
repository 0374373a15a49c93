-- name: draw_budget
-- Make this process's slice of a shared budget large enough for one more call.
SELECT * FROM draw_budget($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: forget_budgets
-- Forget counters that nothing can ask for any more.
SELECT forget_budgets($1, $2)

-- name: budgets
-- What is used of each budget of a tenant, the fullest first; slices are added up, and how many processes hold one is told.
SELECT b.account, min(b.name) AS name, min(b.tenant) AS tenant, min(b.environment) AS environment, min(b.about) AS about,
       min(b.cap) AS cap, min(b.window_s) AS window_s, sum(b.held)::bigint AS held,
       sum(b.held + b.spent + budget_in_window(b.account, b.holder, b.window_s, clock_timestamp()))::bigint AS used,
       count(*) FILTER (WHERE b.holder <> '') AS slices
FROM budget b WHERE ($1 = '' OR b.tenant = $1) AND b.environment = $2 AND ($3 = '' OR b.name = $3)
GROUP BY b.account
ORDER BY sum(b.held + b.spent + budget_in_window(b.account, b.holder, b.window_s, clock_timestamp())) / greatest(1, min(b.cap)) DESC,
         b.account
LIMIT $4

-- name: tight_budgets
-- The budgets of a tenant, or of all, of which a share is used, the fullest first; windows are added up at once, not row by row.
SELECT b.account, min(b.name) AS name, min(b.tenant) AS tenant, min(b.environment) AS environment, min(b.about) AS about,
       min(b.cap) AS cap, min(b.window_s) AS window_s, sum(b.held)::bigint AS held,
       sum(b.held + b.spent + coalesce(u.amount, 0))::bigint AS used, count(*) FILTER (WHERE b.holder <> '') AS slices
FROM budget b
LEFT JOIN (SELECT account, holder, sum(amount) AS amount FROM budget_use WHERE until > clock_timestamp() GROUP BY account, holder) u
    ON b.window_s > 0 AND u.account = b.account AND u.holder = b.holder
WHERE ($1 = '' OR b.tenant = $1) AND b.environment = $2
GROUP BY b.account
HAVING sum(b.held + b.spent + coalesce(u.amount, 0)) * 100 >= min(b.cap) * $3::int
ORDER BY sum(b.held + b.spent + coalesce(u.amount, 0)) / greatest(1, min(b.cap)) DESC, b.account
LIMIT $4
