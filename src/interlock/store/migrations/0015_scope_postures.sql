-- Postures of scopes: they hold for every lineage in the scope, and bump the control epoch, so that whatever was decided before
-- is decided again.

-- Set the posture of a scope, if it is still `p_expected`. Gives the new control epoch, or null.
CREATE FUNCTION set_scope_posture(
    p_scope text, p_expected text, p_to text, p_by text, p_reason text,
    p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE epoch IN EXCLUSIVE MODE;
    IF coalesce((SELECT posture FROM control WHERE scope = p_scope), 'normal') <> p_expected THEN
        RETURN NULL;
    END IF;
    PERFORM set_config('interlock.recorded', pg_current_xact_id()::text, true);
    INSERT INTO control (scope, halted, posture, posture_by, posture_reason) VALUES (p_scope, false, p_to, p_by, p_reason)
    ON CONFLICT (scope) DO UPDATE
    SET posture = excluded.posture, posture_by = excluded.posture_by, posture_reason = excluded.posture_reason;
    PERFORM append_events(ARRAY['control'], ARRAY[p_kind], ARRAY[''], ARRAY[p_body], ARRAY[p_salt], ARRAY[p_commitment]);
    RETURN (SELECT control FROM epoch WHERE id = 1);
END $$;

REVOKE EXECUTE ON FUNCTION set_scope_posture FROM PUBLIC;
GRANT EXECUTE ON FUNCTION set_scope_posture TO interlock_app;
