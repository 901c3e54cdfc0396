-- What a caller sees of the extension pg_net, and no more of it; stand_in.py is the worker. tests/integration/test_pg_net_probes.py holds both to the real one.

CREATE SCHEMA net;

CREATE DOMAIN net.http_method AS text CHECK (VALUE ILIKE ANY ('{get,post,delete}'));

-- Unlogged, and with them the sequence: a crash of the server empties both, and ids start again at 1.
CREATE UNLOGGED TABLE net.http_request_queue (
    id bigserial,
    method net.http_method NOT NULL,
    url text NOT NULL,
    headers jsonb,
    body bytea,
    timeout_milliseconds int NOT NULL
);

CREATE UNLOGGED TABLE net._http_response (
    id bigint,
    status_code int,
    content_type text,
    headers jsonb,
    content text,
    timed_out bool,
    error_msg text,
    created timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON net._http_response (created);

-- A notification is heard when its transaction is committed, and never otherwise.
CREATE FUNCTION net.wake() RETURNS void LANGUAGE sql AS $$
    SELECT pg_notify('pg_net', 'wake')
$$;

CREATE FUNCTION net.worker_restart() RETURNS bool LANGUAGE sql AS $$
    SELECT pg_notify('pg_net', 'restart');
    SELECT true
$$;

-- Who is no superuser does not see what kind of process another role's is: for him the real one is never up either.
CREATE FUNCTION net.check_worker_is_up() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_stat_activity WHERE application_name LIKE 'pg_net %' AND backend_type IS NOT NULL
    ) THEN
        RAISE EXCEPTION 'the pg_net background worker is not up';
    END IF;
END
$$;

CREATE FUNCTION net.percent_encoded(plain text) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT coalesce(string_agg(
        CASE WHEN byte < 128 AND chr(byte) ~ '[A-Za-z0-9._~-]' THEN chr(byte) ELSE '%' || lpad(to_hex(byte), 2, '0') END,
        '' ORDER BY place
    ), '')
    FROM convert_to(plain, 'UTF8') AS bytes,
        generate_series(0, length(bytes) - 1) AS place,
        get_byte(bytes, place) AS byte
$$;

CREATE FUNCTION net.http_post(
    url text,
    body jsonb DEFAULT '{}',
    params jsonb DEFAULT '{}',
    headers jsonb DEFAULT '{"Content-Type": "application/json"}',
    timeout_milliseconds int DEFAULT 5000
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    given text := (SELECT value FROM jsonb_each_text(headers) WHERE lower(key) = 'content-type' LIMIT 1);
    query text := (
        SELECT string_agg(net.percent_encoded(key) || '=' || net.percent_encoded(value), '&')
        FROM jsonb_each_text(params)
    );
    request bigint;
BEGIN
    IF given <> 'application/json' THEN
        RAISE EXCEPTION 'Content-Type header must be "application/json"';
    ELSIF given IS NULL THEN
        headers := headers || '{"Content-Type": "application/json"}';
    END IF;
    INSERT INTO net.http_request_queue (method, url, headers, body, timeout_milliseconds)
    VALUES (
        'POST',
        url || coalesce(CASE WHEN strpos(url, '?') = 0 THEN '?' ELSE '&' END || query, ''),
        headers,
        convert_to(body::text, 'UTF8'),
        timeout_milliseconds
    )
    RETURNING id INTO request;
    PERFORM net.wake();
    RETURN request;
END
$$;

-- Text of exactly these bytes, whether they are characters or not: so the real worker stores what came, and PostgreSQL checks only
-- what comes from clients.
CREATE FUNCTION net.unchecked(bytea, bytea DEFAULT '') RETURNS text LANGUAGE internal IMMUTABLE STRICT AS 'byteacat';

GRANT USAGE ON SCHEMA net TO PUBLIC;
GRANT ALL ON ALL TABLES IN SCHEMA net TO PUBLIC;
GRANT ALL ON ALL SEQUENCES IN SCHEMA net TO PUBLIC;
