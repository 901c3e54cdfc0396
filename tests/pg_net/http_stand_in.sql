-- A stand-in for the extension `http` (pramsey/pgsql-http): the same types and call. The request leaves through a session of
-- its own, so it is on its way while the caller's transaction waits, and a worker outside answers it.
CREATE EXTENSION IF NOT EXISTS dblink;
CREATE SCHEMA web;
CREATE TYPE web.http_header AS (field varchar, value varchar);
CREATE TYPE web.http_request AS (method varchar, uri varchar, headers web.http_header[], content_type varchar, content varchar);
CREATE TYPE web.http_response AS (status int, content_type varchar, headers web.http_header[], content varchar);
CREATE TABLE web.asked (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, method text, uri text, headers jsonb, content text,
  status int, answer text, error text);
-- Text of exactly these bytes, whether they are characters or not: so the real extension hands on what came.
CREATE FUNCTION web.unchecked(bytea, bytea DEFAULT '') RETURNS text LANGUAGE internal IMMUTABLE STRICT AS 'byteacat';
CREATE FUNCTION web.http_set_curlopt(option varchar, value varchar) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION web.http(request web.http_request) RETURNS web.http_response LANGUAGE plpgsql AS $$
DECLARE
  here text := format('host=127.0.0.1 port=%s dbname=%s user=%s', current_setting('port'), current_database(), current_user);
  asked bigint;
  found record;
  headers jsonb := (SELECT jsonb_object_agg(field, value) FROM unnest((request).headers));
BEGIN
  SELECT id INTO asked FROM public.dblink(here, format(
    'INSERT INTO web.asked (method, uri, headers, content) VALUES (%L, %L, %L, %L) RETURNING id',
    (request).method, (request).uri, headers, (request).content)) AS t(id bigint);
  FOR turn IN 1..500 LOOP
    SELECT * INTO found FROM public.dblink(here, format('SELECT status, answer, error FROM web.asked WHERE id = %s', asked))
      AS t(status int, answer text, error text);
    IF found.error IS NOT NULL THEN
      RAISE EXCEPTION '%', found.error;
    ELSIF found.status IS NOT NULL THEN
      RETURN ROW(found.status, 'application/json', NULL, found.answer)::web.http_response;
    END IF;
    PERFORM pg_sleep(0.01);
  END LOOP;
  RAISE EXCEPTION 'Operation timed out after 5000 milliseconds with 0 bytes received';
END $$;
-- As CREATE EXTENSION would note it.
INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
  SELECT 999999, 'http', oid, 'web'::regnamespace, false, '1.5' FROM pg_roles WHERE rolname = current_user;
