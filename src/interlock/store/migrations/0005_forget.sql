-- Outcomes are kept to answer repeated calls, and no longer: they are what the tool said before anything was taken out.
CREATE INDEX idempotency_by_end ON idempotency (expires_at);

CREATE FUNCTION forget_outcomes(p_limit int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    v_count int;
BEGIN
    WITH over AS (
        DELETE FROM idempotency i USING (
            SELECT k.key FROM idempotency k JOIN claim c USING (claim_id)
            WHERE k.expires_at < clock_timestamp() AND c.state IN ('succeeded', 'failed')
            ORDER BY k.expires_at LIMIT p_limit FOR UPDATE OF k SKIP LOCKED
        ) old WHERE i.key = old.key RETURNING i.claim_id
    )
    UPDATE claim c SET outcome = NULL FROM over WHERE c.claim_id = over.claim_id;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;
REVOKE EXECUTE ON FUNCTION forget_outcomes FROM PUBLIC;
GRANT EXECUTE ON FUNCTION forget_outcomes TO interlock_app;
