-- Who may do what. Roles are made by the embedded server or, elsewhere, by an administrator (docs/operations.md).
GRANT USAGE ON SCHEMA public TO interlock_app, interlock_auditor;

GRANT SELECT ON ALL TABLES IN SCHEMA public TO interlock_app, interlock_auditor;
-- INVARIANT: the running system may add to the ledger and may not change or remove what is there.
GRANT INSERT ON event, event_body, signed_head, release TO interlock_app;
GRANT INSERT, UPDATE ON epoch, control, lineage, chain, session, process, claim, auth_refusal, signed_chain TO interlock_app;
GRANT INSERT, UPDATE, DELETE ON idempotency TO interlock_app;
GRANT DELETE ON process TO interlock_app;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO interlock_app;
GRANT EXECUTE ON FUNCTION owner_is_alive TO interlock_auditor;
