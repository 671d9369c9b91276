-- migrate:up

-- Tables that are made from another, by LIKE, say of its columns what that says. Whatever they say themselves comes after.
DO $$
DECLARE
    derived RECORD;
BEGIN
    FOR derived IN
        SELECT made.oid::REGCLASS AS made, own.attname, col_description(origin.oid, one.attnum) AS about
        FROM pg_class AS made
        JOIN pg_class AS origin
            ON
                origin.relnamespace = made.relnamespace
                AND origin.relname = CASE
                    WHEN made.relname LIKE 'stg\_%' THEN substr(made.relname, 5)
                    WHEN made.relname LIKE '%\_pipeline\_errors' THEN 'agent_pipeline_errors'
                END
        JOIN pg_attribute AS own ON own.attrelid = made.oid AND own.attnum > 0
        JOIN pg_attribute AS one ON one.attrelid = origin.oid AND one.attname = own.attname
        WHERE made.relnamespace = current_schema()::REGNAMESPACE AND made.relkind = 'r' AND made.oid <> origin.oid
    LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', derived.made, derived.attname, derived.about);
    END LOOP;
END
$$;

-- migrate:down
