-- The keys that sign calls: HMAC-SHA256 from core functions, of which only the padded blocks are kept.

CREATE OR REPLACE FUNCTION jobmanager.padded(_key bytea, _with int) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  block bytea := CASE WHEN length(_key) > 64 THEN sha256(_key) ELSE _key END;
BEGIN
  block := block || decode(repeat('00', 64 - length(block)), 'hex');
  FOR place IN 0..63 LOOP
    block := set_byte(block, place, get_byte(block, place) # _with);
  END LOOP;
  RETURN block;
END $$;

CREATE OR REPLACE FUNCTION jobmanager.key_of(_secret text) RETURNS bytea
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE WHEN _secret LIKE 'whsec\_%' THEN decode(substr(_secret, 7) || repeat('=', -length(substr(_secret, 7)) & 3), 'base64')
    ELSE convert_to(_secret, 'UTF8') END
$$;

CREATE OR REPLACE FUNCTION jobmanager.vault_name(_namespace text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT 'jobmanager_signing_key' || CASE WHEN _namespace = 'default' THEN '' ELSE '_' || _namespace END
$$;

CREATE OR REPLACE FUNCTION jobmanager.live_keys(_namespace text) RETURNS TABLE (ipad bytea, opad bytea, bearer text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
-- Newest first. Where there is a Vault, what it holds under our name comes before what the table holds. A secret that signs is no
-- bearer token unless the owner stored it as one.
BEGIN
  IF jobmanager.has_table('vault', 'decrypted_secrets') THEN
    RETURN QUERY EXECUTE
      'SELECT jobmanager.padded(jobmanager.key_of(decrypted_secret), 54), jobmanager.padded(jobmanager.key_of(decrypted_secret), 92),'
      ' CASE WHEN $3 THEN decrypted_secret END FROM vault.decrypted_secrets WHERE name IN ($1, $2) ORDER BY name DESC'
      USING jobmanager.vault_name(_namespace), jobmanager.vault_name(_namespace) || '_next',
        EXISTS (SELECT FROM jobmanager.bearers b WHERE b.namespace = _namespace);
  END IF;
  RETURN QUERY SELECT k.ipad, k.opad, k.bearer FROM jobmanager.signing_keys k
    WHERE k.namespace = _namespace AND k.retired_at IS NULL ORDER BY k.id DESC;
END $$;

CREATE OR REPLACE FUNCTION jobmanager.signature(_namespace text, _message bytea) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT string_agg('v1,' || encode(sha256(opad || sha256(ipad || _message)), 'base64'), ' ')
    FROM jobmanager.live_keys(_namespace)
$$;

CREATE OR REPLACE FUNCTION jobmanager.put_key(_namespace text, _secret text, _bearer boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- Sign with this secret, too. It travels as a parameter: with log_statement it would stand in the server's log.
DECLARE
  known uuid;
  name text := jobmanager.vault_name(_namespace);
BEGIN
  IF _bearer THEN
    INSERT INTO jobmanager.bearers (namespace) VALUES (_namespace) ON CONFLICT DO NOTHING;
  END IF;
  IF jobmanager.has_table('vault', 'decrypted_secrets') THEN
    EXECUTE 'SELECT id FROM vault.decrypted_secrets WHERE decrypted_secret = $1 AND name IN ($2, $2 || ''_next'')' INTO known USING _secret, name;
    IF known IS NOT NULL THEN
      RETURN;
    END IF;
    EXECUTE 'SELECT id FROM vault.decrypted_secrets WHERE name = $1' INTO known USING name;
    IF known IS NULL THEN
      EXECUTE 'SELECT vault.create_secret($1, $2)' USING _secret, name;
      RETURN;
    END IF;
    EXECUTE 'SELECT id FROM vault.decrypted_secrets WHERE name = $1' INTO known USING name || '_next';
    IF known IS NULL THEN
      EXECUTE 'SELECT vault.create_secret($1, $2)' USING _secret, name || '_next';
    ELSE
      EXECUTE 'SELECT vault.update_secret($1, $2)' USING known, _secret;
    END IF;
    RETURN;
  END IF;
  INSERT INTO jobmanager.signing_keys (namespace, ipad, opad, bearer)
    SELECT _namespace, pads.ipad, pads.opad, CASE WHEN _bearer THEN _secret END
      FROM (SELECT jobmanager.padded(jobmanager.key_of(_secret), 54) AS ipad, jobmanager.padded(jobmanager.key_of(_secret), 92) AS opad) pads
     WHERE NOT EXISTS (SELECT FROM jobmanager.signing_keys k WHERE k.namespace = _namespace AND k.ipad = pads.ipad
       AND k.retired_at IS NULL AND (k.bearer IS NOT NULL) = _bearer);
END $$;

CREATE OR REPLACE FUNCTION jobmanager.new_signing_key(_namespace text, _bearer boolean DEFAULT false) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- Make a key in the database, so that it stands in no log: returned once, and never again.
DECLARE
  secret text := 'whsec_' || encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'base64');
BEGIN
  PERFORM jobmanager.put_key(_namespace, secret, _bearer);
  RETURN secret;
END $$;

CREATE OR REPLACE FUNCTION jobmanager.retire_signing_keys(_namespace text) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- Let only the newest key sign from now on; return how many ended.
DECLARE
  ended int;
  newer text;
  this uuid;
  next uuid;
  name text := jobmanager.vault_name(_namespace);
BEGIN
  UPDATE jobmanager.signing_keys k SET retired_at = clock_timestamp(), bearer = NULL, ipad = '', opad = ''
   WHERE k.namespace = _namespace AND k.retired_at IS NULL
     AND k.id < (SELECT max(id) FROM jobmanager.signing_keys WHERE namespace = _namespace);
  GET DIAGNOSTICS ended = ROW_COUNT;
  IF jobmanager.has_table('vault', 'decrypted_secrets') THEN
    EXECUTE 'SELECT id, decrypted_secret FROM vault.decrypted_secrets WHERE name = $1' INTO next, newer USING name || '_next';
    EXECUTE 'SELECT id FROM vault.decrypted_secrets WHERE name = $1' INTO this USING name;
    IF next IS NOT NULL THEN
      EXECUTE 'SELECT vault.update_secret($1, $2)' USING this, newer;
      EXECUTE 'DELETE FROM vault.secrets WHERE id = $1' USING next;
      ended := ended + 1;
    END IF;
    IF this IS NOT NULL THEN  -- a key in the table is older than any in the Vault
      WITH gone AS (UPDATE jobmanager.signing_keys k SET retired_at = clock_timestamp(), bearer = NULL, ipad = '', opad = ''
        WHERE k.namespace = _namespace AND k.retired_at IS NULL RETURNING 1) SELECT ended + count(*) INTO ended FROM gone;
    END IF;
  END IF;
  RETURN ended;
END $$;

CREATE OR REPLACE FUNCTION jobmanager.is_signed(_namespace text, _message text, _signature text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- Return whether one of our keys made this signature: how the application learns, without seeing a key, that it has the same.
  SELECT _signature = ANY (string_to_array(coalesce(jobmanager.signature(_namespace, convert_to(_message, 'UTF8')), ''), ' '))
$$;
