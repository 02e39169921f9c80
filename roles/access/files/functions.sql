-- Functions of PostgreSQL that every user may call by default, and with which a user could stop backups or writers. Runs in one
-- transaction, as the superuser, in every database of the product and in the template of restored databases: a restore is no
-- superuser, and cannot revoke these privileges. The last statement returns whether anything was changed.

CREATE FUNCTION pg_temp.functions() RETURNS TABLE (function text, grantee oid, privilege text)
LANGUAGE sql
BEGIN ATOMIC
    SELECT oid::regprocedure, acl.grantee, acl.privilege_type
    FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) AS acl
    WHERE pronamespace = 'pg_catalog'::regnamespace AND proname ~ '^lo_|^loread$|^lowrite$|advisory';
END;
CREATE TEMPORARY TABLE functions_before ON COMMIT DROP AS SELECT * FROM pg_temp.functions();

DO $$
DECLARE
    name regprocedure;
BEGIN
    -- Large objects: the owner of the database only, in whichever database a restore makes of the template; the backup user reads them. Nobody may call lo_import and lo_export, which initdb has revoked.
    FOR name IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace AND proname ~ '^lo_|^loread$|^lowrite$' AND proname !~ 'port$'
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', name);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO pg_database_owner', name);
    END LOOP;
    FOR name IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace AND proname IN ('lo_open', 'loread', 'lo_close', 'lo_get')
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO occupancy_backup', name);
    END LOOP;

    -- Advisory locks can fill the lock table of the whole server: then nobody can connect, not even the superuser.
    FOR name IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace AND proname ~ '^pg_(try_)?advisory_(xact_)?lock'
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', name);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO pg_database_owner, occupancy_backup', name);
    END LOOP;

    -- A user with CREATEDB may copy a template database.
    IF current_database() = 'occupancy_template' THEN
        ALTER DATABASE occupancy_template IS_TEMPLATE true;
    END IF;
END $$;

SELECT count(*) > 0 AS changed
FROM (
    (SELECT * FROM pg_temp.functions() EXCEPT SELECT * FROM functions_before)
    UNION ALL
    (SELECT * FROM functions_before EXCEPT SELECT * FROM pg_temp.functions())
) AS difference
