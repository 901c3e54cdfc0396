-- The tables that SQL needs to keep the time alone. Jobs and runs are the store's own tables.

CREATE TABLE IF NOT EXISTS jobmanager.schedules (
  schedule text PRIMARY KEY,            -- as in jobs.schedule: an edited one has no plan
  kind text NOT NULL CHECK (kind IN ('cron', 'every', 'at')),
  first_at timestamptz,
  step bigint CHECK (step > 0),         -- seconds
  wakeup text NOT NULL,                 -- for pg_cron: every instant's minute, and maybe more
  planned_until date NOT NULL,
  tzdata text NOT NULL,
  CHECK ((kind = 'cron') = (first_at IS NULL)),
  CHECK ((kind = 'every') = (step IS NOT NULL)));

-- On these days (UTC), these minutes of the day.
CREATE TABLE IF NOT EXISTS jobmanager.plans (
  schedule text NOT NULL REFERENCES jobmanager.schedules ON DELETE CASCADE,
  n int NOT NULL,
  minutes bit(1440) NOT NULL,
  days datemultirange NOT NULL,
  PRIMARY KEY (schedule, n));

-- Jobs whose schedule made SQL fail: left out until they are planned anew.
CREATE TABLE IF NOT EXISTS jobmanager.parked (
  job_id text PRIMARY KEY,
  error text NOT NULL,
  since timestamptz NOT NULL DEFAULT clock_timestamp());

-- The applications whose time is kept here, and how they are reached.
CREATE TABLE IF NOT EXISTS jobmanager.tickers (
  namespace text PRIMARY KEY,
  transport text NOT NULL CHECK (transport IN ('pg_net', 'http', 'notify')),
  layout text NOT NULL CHECK (layout IN ('dispatcher', 'entries')),
  auth text NOT NULL DEFAULT 'signature' CHECK (auth IN ('signature', 'bearer')),
  url text,
  timeout_ms int NOT NULL DEFAULT 5000 CHECK (timeout_ms BETWEEN 1000 AND 300000),
  passes int NOT NULL DEFAULT 4 CHECK (passes BETWEEN 1 AND 4),
  pruned_at timestamptz,
  CHECK (url IS NOT NULL OR transport = 'notify'));

-- Those whose time pg_cron keeps: while another backend does, everything here is inert.
CREATE OR REPLACE VIEW jobmanager.active_tickers AS SELECT t.* FROM jobmanager.tickers t
  WHERE NOT EXISTS (SELECT FROM jobmanager.keepers k WHERE k.namespace = t.namespace AND k.backend <> 'pg_cron');

CREATE TABLE IF NOT EXISTS jobmanager.paused_entries (name text PRIMARY KEY);

CREATE TABLE IF NOT EXISTS jobmanager.signing_keys (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  namespace text NOT NULL,
  ipad bytea NOT NULL,
  opad bytea NOT NULL,
  bearer text,                          -- only if the application asked for it
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  retired_at timestamptz);

-- The applications whose secret in the Vault may itself be sent: the owner stored it for that.
CREATE TABLE IF NOT EXISTS jobmanager.bearers (namespace text PRIMARY KEY);

CREATE TABLE IF NOT EXISTS jobmanager.calls (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  namespace text NOT NULL,
  kind text NOT NULL CHECK (kind IN ('ticks', 'plan', 'sweep')),
  epoch uuid NOT NULL,
  request_id bigint,
  sent_at timestamptz NOT NULL,
  runs int NOT NULL,
  run_ids uuid[],                       -- while it is open
  outcome text,
  http_status int,
  detail text,
  answered_at timestamptz);
CREATE INDEX IF NOT EXISTS calls_open ON jobmanager.calls (sent_at) WHERE outcome IS NULL;
CREATE INDEX IF NOT EXISTS calls_sent ON jobmanager.calls (sent_at);

CREATE TABLE IF NOT EXISTS jobmanager.run_calls (
  run_id uuid PRIMARY KEY,
  calls int NOT NULL,
  next_call_at timestamptz NOT NULL,
  call_id bigint NOT NULL);
CREATE INDEX IF NOT EXISTS run_calls_call ON jobmanager.run_calls (call_id);

-- pg_net's tables and their ids are lost in a crash, and so is this row: ids may be compared only within one epoch.
CREATE UNLOGGED TABLE IF NOT EXISTS jobmanager.epoch (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  id uuid NOT NULL DEFAULT gen_random_uuid(),
  swept_at timestamptz);

CREATE OR REPLACE FUNCTION jobmanager.has_table(_schema text, _table text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
-- Return whether an extension brought it, a superuser or we ourselves: whoever may make schemas could else have planted one, and
-- functions of theirs would be called with our rights.
  SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles o ON o.oid = n.nspowner
    WHERE n.nspname = _schema AND c.relname = _table AND (o.rolsuper OR o.rolname = current_user
      OR EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e')))
$$;
