-- What only versions before 41 asked for goes; databases that began with the baseline never had it. And two functions of triggers
-- lose a right that no other function gives.

DROP FUNCTION IF EXISTS commit_batch;
DROP FUNCTION IF EXISTS enter_contexts;
REVOKE EXECUTE ON FUNCTION risk_was_looked_at, logins_end_with_a_restore FROM PUBLIC;
GRANT EXECUTE ON FUNCTION risk_was_looked_at, logins_end_with_a_restore TO interlock_app;
