-- Logins of people and of the clients that act for them: what the built-in issuer must remember between two requests.
-- Whatever opens something (codes, refresh tokens, browsers' handles) is kept as a keyed digest only.

-- Clients that act for people.
CREATE TABLE oauth_client (
    client_id      text PRIMARY KEY,
    environment    text NOT NULL,
    name           text NOT NULL,
    redirect_uris  text[] NOT NULL,
    agent          text NOT NULL DEFAULT '',
    registered_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    used_at        timestamptz
);
CREATE INDEX oauth_client_by_time ON oauth_client (environment, registered_at);

-- A login that goes on: of a person (`agent` is empty), or of a client that acts for them in one session.
CREATE TABLE login (
    login_id       text PRIMARY KEY,
    environment    text NOT NULL,
    client_id      text NOT NULL,
    tenant         text NOT NULL,
    user_id        text NOT NULL,
    agent          text NOT NULL,
    task           text NOT NULL,
    session_id     text NOT NULL,
    started_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at     timestamptz NOT NULL,
    ended_at       timestamptz,
    ended_because  text NOT NULL DEFAULT ''
);
CREATE INDEX login_by_end ON login (expires_at);

-- Refresh tokens of a login: a spent one that comes again ends it.
CREATE TABLE login_key (
    digest    bytea PRIMARY KEY,
    login_id  text NOT NULL REFERENCES login ON DELETE CASCADE,
    spent_at  timestamptz
);
CREATE INDEX login_key_by_login ON login_key (login_id);

-- What a person has agreed to and a client has not yet fetched: authorization codes and device codes, each fetched once.
CREATE TABLE login_code (
    digest        bytea PRIMARY KEY,
    kind          text NOT NULL CHECK (kind IN ('code', 'device')),
    login_id      text NOT NULL,
    environment   text NOT NULL,
    client_id     text NOT NULL,
    state         text NOT NULL CHECK (state IN ('waiting', 'denied', 'approved', 'spent', 'replayed')),
    tenant        text NOT NULL DEFAULT '',
    user_id       text NOT NULL DEFAULT '',
    agent         text NOT NULL DEFAULT '',
    task          text NOT NULL DEFAULT '',
    redirect_uri  text NOT NULL DEFAULT '',
    challenge     text NOT NULL DEFAULT '',
    resource      text NOT NULL DEFAULT '',
    user_digest   bytea UNIQUE,
    asked_as      text NOT NULL DEFAULT '',
    asked_from    text NOT NULL DEFAULT '',
    pause_s       int NOT NULL DEFAULT 0,
    polled_at     timestamptz,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at    timestamptz NOT NULL
);
CREATE INDEX login_code_by_end ON login_code (expires_at);
CREATE INDEX login_code_by_login ON login_code (login_id);

-- One-time proofs that were used, until they would have run out anyway.
CREATE TABLE spent_proof (
    digest      bytea PRIMARY KEY,
    expires_at  timestamptz NOT NULL
);

-- User codes that people typed, right or wrong: what makes guessing a device's code hopeless.
CREATE TABLE typed_code (
    environment  text NOT NULL,
    tenant       text NOT NULL,
    user_id      text NOT NULL,
    at           timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX typed_code_by_person ON typed_code (environment, tenant, user_id, at);

-- Begin a login with its first key. False when the code it comes from was fetched a second time meanwhile.
CREATE FUNCTION start_login(
    p_login text, p_environment text, p_client text, p_tenant text, p_user text, p_agent text, p_task text, p_session text,
    p_expires timestamptz, p_digest bytea, p_kind text, p_body text, p_salt bytea, p_commitment bytea
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM login_code c WHERE c.login_id = p_login FOR UPDATE;
    IF EXISTS (SELECT FROM login_code c WHERE c.login_id = p_login AND c.state <> 'spent') THEN
        RETURN false;
    END IF;
    INSERT INTO login (login_id, environment, client_id, tenant, user_id, agent, task, session_id, expires_at)
    VALUES (p_login, p_environment, p_client, p_tenant, p_user, p_agent, p_task, p_session, p_expires);
    INSERT INTO login_key (digest, login_id) VALUES (p_digest, p_login);
    UPDATE oauth_client SET used_at = clock_timestamp() WHERE client_id = p_client;
    PERFORM append_control(p_kind, p_body, p_salt, p_commitment);
    RETURN true;
END $$;

-- Fetch what a person agreed to. Of several that fetch at once one gets it; a second fetch ends what came of the first.
CREATE FUNCTION fetch_code(
    p_digest bytea, p_kind text, p_environment text, p_client text,
    e_kind text, e_body text, e_salt bytea, e_commitment bytea,
    OUT answer text, OUT login_id text, OUT tenant text, OUT user_id text, OUT agent text, OUT task text,
    OUT redirect_uri text, OUT challenge text, OUT resource text
) LANGUAGE plpgsql AS $$
DECLARE
    c login_code;
    v_now timestamptz;
BEGIN
    SELECT * INTO c FROM login_code l
    WHERE l.digest = p_digest AND l.kind = p_kind AND l.environment = p_environment FOR UPDATE;
    v_now := clock_timestamp();
    IF NOT FOUND THEN
        answer := 'unknown';
    ELSIF c.state IN ('spent', 'replayed') THEN
        UPDATE login_code l SET state = 'replayed' WHERE l.digest = p_digest;
        PERFORM end_login(c.login_id, 'its code was used twice', e_kind, e_body, e_salt, e_commitment);
        answer := 'replayed';
    ELSIF c.client_id <> p_client THEN
        -- In another client's hands it is of no use to anybody any more, unless nobody has agreed to anything yet.
        UPDATE login_code l SET state = 'replayed' WHERE l.digest = p_digest AND l.state = 'approved';
        answer := 'unknown';
    ELSIF c.expires_at <= v_now THEN
        answer := 'expired';
    ELSIF p_kind = 'device' AND c.polled_at > v_now - make_interval(secs => c.pause_s) THEN
        UPDATE login_code l SET polled_at = v_now, pause_s = l.pause_s + 5 WHERE l.digest = p_digest;
        answer := 'too_soon';
    ELSIF c.state <> 'approved' THEN
        UPDATE login_code l SET polled_at = v_now WHERE l.digest = p_digest;
        answer := c.state;
    ELSE
        UPDATE login_code l SET state = 'spent', polled_at = v_now WHERE l.digest = p_digest;
        answer := 'approved';
        login_id := c.login_id; tenant := c.tenant; user_id := c.user_id; agent := c.agent; task := c.task;
        redirect_uri := c.redirect_uri; challenge := c.challenge; resource := c.resource;
    END IF;
END $$;

-- Change a refresh token for the next. Of several that try at once one succeeds; a spent one ends the login.
CREATE FUNCTION rotate_login(
    p_old bytea, p_new bytea, p_environment text, p_client text,
    e_kind text, e_body text, e_salt bytea, e_commitment bytea
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    k login_key;
    l login;
BEGIN
    SELECT * INTO k FROM login_key WHERE digest = p_old FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'unknown';
    END IF;
    SELECT * INTO l FROM login WHERE login_id = k.login_id FOR UPDATE;
    IF l.environment <> p_environment THEN
        RETURN 'unknown';
    ELSIF k.spent_at IS NOT NULL THEN
        PERFORM end_login(l.login_id, 'a refresh token was used twice', e_kind, e_body, e_salt, e_commitment);
        RETURN 'replayed';
    ELSIF l.client_id <> p_client THEN
        PERFORM end_login(l.login_id, 'another client showed its refresh token', e_kind, e_body, e_salt, e_commitment);
        RETURN 'unknown';
    ELSIF l.ended_at IS NOT NULL OR l.expires_at <= clock_timestamp() THEN
        RETURN 'ended';
    END IF;
    UPDATE login_key SET spent_at = clock_timestamp() WHERE digest = p_old;
    INSERT INTO login_key (digest, login_id) VALUES (p_new, l.login_id);
    RETURN 'rotated';
END $$;

-- End a login and the session it holds. False when it had ended before; then nothing is recorded twice.
CREATE FUNCTION end_login(p_login text, p_because text, p_kind text, p_body text, p_salt bytea, p_commitment bytea)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_session text;
BEGIN
    UPDATE login SET ended_at = clock_timestamp(), ended_because = p_because
    WHERE login_id = p_login AND ended_at IS NULL RETURNING session_id INTO v_session;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF v_session <> '' THEN
        PERFORM revoke_session(v_session);
    END IF;
    PERFORM append_control(p_kind, p_body, p_salt, p_commitment);
    RETURN true;
END $$;

-- Forget what is over: codes and proofs at once, logins a day later, clients that nobody used for a month.
CREATE FUNCTION forget_logins() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM login_code WHERE expires_at < clock_timestamp() - interval '1 hour';
    DELETE FROM spent_proof WHERE expires_at < clock_timestamp();
    DELETE FROM typed_code WHERE at < clock_timestamp() - interval '1 hour';
    DELETE FROM login WHERE expires_at < clock_timestamp() - interval '1 day';
    DELETE FROM oauth_client WHERE coalesce(used_at, registered_at + interval '29 days') < clock_timestamp() - interval '30 days';
END $$;
