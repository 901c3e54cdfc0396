-- What a superuser does once, in the database of the jobs: psql -d shop -f setup.sql. Twice is safe.
--
-- It makes one role, `jobmanager`, that will own our schema and pg_cron's entries. It is no superuser, but it may log in: pg_cron
-- logs in as the owner of an entry. Everything else is made by `jobmanager init`, which connects as this role.
-- Before it, pg_cron has to be in shared_preload_libraries: README.md beside this file says how.

DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'jobmanager') THEN
    CREATE ROLE jobmanager LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;
  END IF;

  -- For its schema, also called `jobmanager`.
  EXECUTE format('GRANT CREATE ON DATABASE %I TO jobmanager', current_database());

  -- For entries of its own: pg_cron shows it those and no others. If pg_cron lives in another database, see README.md.
  IF current_setting('cron.database_name') = current_database() THEN
    CREATE EXTENSION IF NOT EXISTS pg_cron;
    GRANT USAGE ON SCHEMA cron TO jobmanager;
  END IF;

  -- The database calls with pg_net. Without it, processes of the application listen (transport notify).
  IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_net') THEN
    CREATE EXTENSION IF NOT EXISTS pg_net;
  END IF;
  IF to_regnamespace('net') IS NOT NULL THEN
    GRANT USAGE ON SCHEMA net TO jobmanager;
    GRANT SELECT ON net._http_response, net.http_request_queue TO jobmanager; -- since pg_net 0.12 every role may
  END IF;

  -- For `jobmanager doctor` alone, which compares pg_cron's settings with what is needed.
  GRANT pg_read_all_settings TO jobmanager;
END $$;

-- How it logs in from outside is yours to say: a password, a certificate, or a line of pg_hba.conf.
--   ALTER ROLE jobmanager PASSWORD '...';
