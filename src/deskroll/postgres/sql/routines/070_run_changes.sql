-- migrate:up

-- A publish file writes into its table of changes what is to change, and then changes the final table. So a trigger on
-- the table of changes finds the old values in the final table, in one statement for all of them. A run says in the
-- setting deskroll.tracked what it wants to know, and makes the table deskroll_kept. By hand nothing is kept.
CREATE OR REPLACE FUNCTION deskroll_tracked_by(changes NAME)
RETURNS TABLE (target TEXT, ids TEXT, joined TEXT, fields TEXT, first_key TEXT, kinds TEXT[]) LANGUAGE sql STABLE
SET search_path FROM CURRENT AS $$
    SELECT
        tracked.target,
        (SELECT string_agg(format('changed.%I::TEXT', part.name), ', ' ORDER BY part.nth)
            FROM unnest(tracked.key) WITH ORDINALITY AS part (name, nth)),
        (SELECT string_agg(format('stored.%1$I = changed.%1$I', part.name), ' AND ') FROM unnest(tracked.key) AS part (name)),
        (SELECT string_agg(format('%1$L, stored.%1$I', part.name), ', ') FROM unnest(tracked.columns) AS part (name)),
        tracked.key[1],
        tracked.kinds
    FROM jsonb_to_recordset(coalesce(nullif(current_setting('deskroll.tracked', true), ''), '[]')::JSONB)
        AS tracked (told_by TEXT, target TEXT, key TEXT[], columns TEXT[], kinds TEXT[])
    WHERE tracked.told_by = changes
$$;
COMMENT ON FUNCTION deskroll_tracked_by IS
'What the run at hand wants to know of the final tables whose changes a table tells, as pieces of SQL.';

CREATE OR REPLACE FUNCTION deskroll_keep_before()
RETURNS TRIGGER LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    tracked RECORD;
BEGIN
    FOR tracked IN SELECT * FROM deskroll_tracked_by(TG_TABLE_NAME) LOOP
        EXECUTE format(
            'INSERT INTO pg_temp.deskroll_kept (target, ids, change, before)
            SELECT %1$L, ARRAY[%2$s], changed.change, CASE WHEN stored.%5$I IS NOT NULL THEN jsonb_build_object(%4$s) END
            FROM changed LEFT JOIN %1$I AS stored ON %3$s
            WHERE changed.change = ANY ($1)',
            tracked.target, tracked.ids, tracked.joined, tracked.fields, tracked.first_key
        ) USING tracked.kinds;
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION deskroll_keep_before IS
'Trigger of a table of changes: keep the rows that are about to change as they still are.';

CREATE OR REPLACE FUNCTION deskroll_keep_pairs()
RETURNS TRIGGER LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    tracked RECORD;
BEGIN
    FOR tracked IN SELECT * FROM deskroll_tracked_by(TG_TABLE_NAME) LOOP
        EXECUTE format(
            'INSERT INTO pg_temp.deskroll_kept (target, ids, change, before)
            SELECT %1$L, ARRAY[%2$s], $1, CASE WHEN $2 THEN jsonb_build_object(%3$s) END
            FROM changed CROSS JOIN LATERAL (SELECT changed.*) AS stored',
            tracked.target, tracked.ids, tracked.fields
        ) USING tracked.kinds[CASE WHEN TG_OP = 'INSERT' THEN 1 ELSE 2 END], TG_OP = 'DELETE';
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION deskroll_keep_pairs IS
'Trigger of a table of pairs: keep those that were inserted or deleted. Its kinds are the words for the two.';

-- For columns that change without a row in a table of changes. The trigger has the change, and the column of the key.
CREATE OR REPLACE FUNCTION deskroll_keep_row()
RETURNS TRIGGER LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF coalesce(current_setting('deskroll.tracked', true), '') <> '' THEN
        INSERT INTO pg_temp.deskroll_kept (target, ids, change, before)
        VALUES (TG_TABLE_NAME, ARRAY[to_jsonb(OLD) ->> TG_ARGV[1]], TG_ARGV[0], to_jsonb(OLD));
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION deskroll_keep_row IS 'Trigger of a final table: keep a row as it was.';

DO $$
DECLARE
    changes TEXT;
BEGIN
    FOR changes IN
        SELECT relname FROM pg_class
        WHERE relnamespace = current_schema()::REGNAMESPACE AND relkind = 'r' AND relname LIKE 'stg\_%\_changes'
        ORDER BY 1
    LOOP
        EXECUTE format(
            'CREATE OR REPLACE TRIGGER deskroll_keep_before AFTER INSERT ON %I
            REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION deskroll_keep_before()',
            changes
        );
    END LOOP;
END
$$;

CREATE OR REPLACE TRIGGER deskroll_keep_added AFTER INSERT ON agent_group_membership
REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION deskroll_keep_pairs();

CREATE OR REPLACE TRIGGER deskroll_keep_removed AFTER DELETE ON agent_group_membership
REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION deskroll_keep_pairs();

CREATE OR REPLACE TRIGGER deskroll_keep_added AFTER INSERT ON group_membership
REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION deskroll_keep_pairs();

CREATE OR REPLACE TRIGGER deskroll_keep_removed AFTER DELETE ON group_membership
REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION deskroll_keep_pairs();

CREATE OR REPLACE TRIGGER deskroll_keep_row AFTER UPDATE ON agent_details FOR EACH ROW
WHEN ((old.org_agent_id, old.ticket_scope) IS DISTINCT FROM (new.org_agent_id, new.ticket_scope))
EXECUTE FUNCTION deskroll_keep_row('details changed', 'agent_id');

CREATE OR REPLACE TRIGGER deskroll_keep_row AFTER UPDATE ON cards FOR EACH ROW
WHEN ((old.budget_id, old.agent_id) IS DISTINCT FROM (new.budget_id, new.agent_id))
EXECUTE FUNCTION deskroll_keep_row('linked', 'card_id');

-- migrate:down

DROP TRIGGER deskroll_keep_row ON cards;
DROP TRIGGER deskroll_keep_row ON agent_details;
DROP TRIGGER deskroll_keep_removed ON group_membership;
DROP TRIGGER deskroll_keep_added ON group_membership;
DROP TRIGGER deskroll_keep_removed ON agent_group_membership;
DROP TRIGGER deskroll_keep_added ON agent_group_membership;
DROP FUNCTION deskroll_keep_row;
DROP FUNCTION deskroll_keep_pairs;
DROP FUNCTION deskroll_keep_before CASCADE;
DROP FUNCTION deskroll_tracked_by;
