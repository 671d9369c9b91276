-- migrate:up

-- A million rows go into a table without keys in a tenth of the time, and the keys are then made in another tenth. So
-- a first load, when all the tables are empty, takes the keys off them and puts them back in the same transaction.
-- Keys stay on if something leans on them: a replica that is told of updates by the key, a view, a constraint.
CREATE OR REPLACE FUNCTION deskroll_detach_keys(VARIADIC tables REGCLASS[]) RETURNS VOID
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    target REGCLASS;
    is_ready BOOLEAN;
    key RECORD;
BEGIN
    CREATE TEMP TABLE IF NOT EXISTS deskroll_detached_keys (step INTEGER, ddl TEXT);
    -- Outside a transaction block each statement ends its own transaction, and a crash would leave tables bare.
    IF transaction_timestamp() = statement_timestamp() THEN
        RETURN;
    END IF;
    FOREACH target IN ARRAY tables LOOP
        EXECUTE format(
            'SELECT NOT EXISTS (SELECT FROM %s) AND pg_has_role(relowner, ''USAGE'') AND relreplident = ''d''
                AND NOT EXISTS (
                    SELECT FROM pg_publication_tables
                    WHERE tablename = relname AND schemaname = (SELECT nspname FROM pg_namespace WHERE oid = relnamespace)
                )
            FROM pg_class WHERE oid = $1',
            target
        ) INTO is_ready USING target;
        IF NOT is_ready THEN
            RETURN;
        END IF;
    END LOOP;
    FOREACH target IN ARRAY tables LOOP
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', target);
        EXECUTE format('SELECT NOT EXISTS (SELECT FROM %s)', target) INTO is_ready;
        CONTINUE WHEN NOT is_ready;
        FOR key IN
            SELECT
                conname, conrelid::REGCLASS AS on_table, pg_get_constraintdef(oid) AS definition, contype,
                obj_description(oid, 'pg_constraint') AS about
            FROM pg_constraint
            WHERE conrelid = target AND contype IN ('p', 'u', 'f') OR confrelid = target AND contype = 'f'
            ORDER BY contype  -- foreign keys before the primary keys that they lean on
        LOOP
            INSERT INTO pg_temp.deskroll_detached_keys VALUES (
                CASE WHEN key.contype = 'f' THEN 2 ELSE 1 END,
                format('ALTER TABLE %s ADD CONSTRAINT %I %s', key.on_table, key.conname, key.definition)
            );
            IF key.about IS NOT NULL THEN
                INSERT INTO pg_temp.deskroll_detached_keys VALUES (
                    3, format('COMMENT ON CONSTRAINT %I ON %s IS %L', key.conname, key.on_table, key.about)
                );
            END IF;
            EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', key.on_table, key.conname);
        END LOOP;
        -- A table that is new in its transaction needs no log if the server has no replicas (wal_level = minimal).
        EXECUTE format('TRUNCATE %s', target);
    END LOOP;
EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN
    RETURN;  -- with every key in its place
END
$$;
COMMENT ON FUNCTION deskroll_detach_keys IS
'Take the keys off tables that are all empty, unless something leans on them, until deskroll_attach_keys().';

CREATE OR REPLACE FUNCTION deskroll_attach_keys()
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    statement TEXT;
BEGIN
    IF to_regclass('pg_temp.deskroll_detached_keys') IS NULL THEN
        RETURN;
    END IF;
    FOR statement IN SELECT ddl FROM pg_temp.deskroll_detached_keys ORDER BY step LOOP
        EXECUTE statement;
    END LOOP;
    DROP TABLE pg_temp.deskroll_detached_keys;
END
$$;
COMMENT ON FUNCTION deskroll_attach_keys IS 'Put back the keys that deskroll_detach_keys() took off.';

-- migrate:down

DROP FUNCTION deskroll_attach_keys;
DROP FUNCTION deskroll_detach_keys;
