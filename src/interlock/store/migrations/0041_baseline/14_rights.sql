-- Who may do what. Roles are made by the embedded server or, elsewhere, by an administrator (docs/operations.md).
-- `interlock_app` is the gateways' role. `interlock_auditor` reads, but nothing of what opens a login.
GRANT USAGE ON SCHEMA public TO interlock_app, interlock_auditor;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO interlock_app, interlock_auditor;
REVOKE SELECT ON login_code, login_key, spent_proof, typed_code FROM interlock_auditor;

-- What is only ever added to.
GRANT INSERT ON event, event_body, signed_head, release, proposal, activation, plan, revocation, accepted_pin TO interlock_app;
-- What changes and stays.
GRANT INSERT, UPDATE ON epoch, control, lineage, chain, session, granted_session, claim, person, approval, signed_chain,
    auth_refusal, restoration, risk_signal, agent_habit, tool_health TO interlock_app;
-- What goes when it is over.
GRANT INSERT, DELETE ON context_item TO interlock_app;
GRANT INSERT, UPDATE, DELETE ON process, idempotency, budget, budget_use, quarantine, breaker, api_answer, oauth_client, login,
    login_key, login_code, spent_proof, typed_code TO interlock_app;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO interlock_app;
GRANT EXECUTE ON FUNCTION owner_is_alive, budget_in_window, readable_json TO interlock_auditor;
