-- Owners and privileges of this database, converged in one transaction. The access role runs this script as the superuser in
-- every database of the product, a restore runs it as the owner. The last statement returns whether anything was changed; in
-- check mode the transaction is rolled back.

-- Privileges as rows, independent of the order in which they were granted
CREATE FUNCTION pg_temp.privileges() RETURNS TABLE (object text, owner text, grantee text, privilege text)
LANGUAGE sql
BEGIN ATOMIC
    SELECT o.object, pg_get_userbyid(o.owner), acl.grantee::regrole::text, acl.privilege_type
    FROM (
        SELECT 'database ' || datname, datdba, coalesce(datacl, acldefault('d', datdba))
        FROM pg_database WHERE datname = current_database()
        UNION ALL
        SELECT 'schema ' || nspname, nspowner, coalesce(nspacl, acldefault('n', nspowner))
        FROM pg_namespace WHERE nspname IN ('public', 'hourly')
        UNION ALL
        SELECT
            format('%s %s', relkind, oid::regclass), relowner,
            coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner))
        FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        UNION ALL
        SELECT format('column %s.%s', oid::regclass, attname), relowner, attacl
        FROM pg_class JOIN pg_attribute ON attrelid = oid
        WHERE relnamespace::regnamespace::text IN ('public', 'hourly') AND attacl IS NOT NULL
        UNION ALL
        SELECT 'function ' || oid::regprocedure, proowner, coalesce(proacl, acldefault('f', proowner))
        FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL
        SELECT format('default privileges: %s %s', defaclobjtype, defaclnamespace), defaclrole, defaclacl
        FROM pg_default_acl
    ) AS o (object, owner, acl) LEFT JOIN LATERAL aclexplode(o.acl) AS acl ON true;
END;
CREATE TEMPORARY TABLE privileges_before ON COMMIT DROP AS SELECT * FROM pg_temp.privileges();

-- The owner
ALTER SCHEMA public OWNER TO occupancy;

-- The maintenance lock (occupancy_db/maintenance.py) is a lock of this table. An empty database stays empty, so that the dump of
-- another one can be loaded into it.
DO $$ BEGIN
    IF to_regclass('public.alembic_version') IS NOT NULL AND to_regclass('public.maintenance_lock') IS NULL THEN
        CREATE TABLE public.maintenance_lock ();
        ALTER TABLE public.maintenance_lock OWNER TO occupancy;
    END IF;
END $$;

-- No privileges for PUBLIC on existing and future objects
DO $$ BEGIN EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database()); END $$;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA public FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE occupancy REVOKE EXECUTE ON ROUTINES FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE occupancy REVOKE USAGE ON TYPES FROM PUBLIC;

-- Connections
DO $$ BEGIN
    EXECUTE format(
        'GRANT CONNECT ON DATABASE %I TO occupancy_app, occupancy_readonly, occupancy_backup, occupancy_monitor',
        current_database()
    );
END $$;

-- The application: reads and writes rows
GRANT USAGE ON SCHEMA public TO occupancy_app;
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM occupancy_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO occupancy_app;
ALTER DEFAULT PRIVILEGES FOR ROLE occupancy IN SCHEMA public
GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO occupancy_app;
-- Inserts into a partition use a sequence default, which requires USAGE; an identity column would not
REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM occupancy_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO occupancy_app;
ALTER DEFAULT PRIVILEGES FOR ROLE occupancy IN SCHEMA public GRANT USAGE ON SEQUENCES TO occupancy_app;

-- Dashboards: read rows
GRANT USAGE ON SCHEMA public TO occupancy_readonly;
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM occupancy_readonly;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO occupancy_readonly;
ALTER DEFAULT PRIVILEGES FOR ROLE occupancy IN SCHEMA public GRANT SELECT ON TABLES TO occupancy_readonly;

-- Comparisons of text with an enum, for clients that map rooms as an enum; the owner alone changes rooms and sensors
DO $$
DECLARE
    operator regprocedure;
BEGIN
    FOR operator IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace AND proname IN ('enum_text_eq', 'enum_text_ne')
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO occupancy_app, occupancy_readonly', operator);
    END LOOP;
    IF to_regclass('public.rooms') IS NOT NULL THEN
        REVOKE INSERT, UPDATE, DELETE ON public.rooms FROM occupancy_app;
    END IF;
    IF to_regclass('public.sensors') IS NOT NULL THEN
        REVOKE INSERT, UPDATE, DELETE ON public.sensors FROM occupancy_app;
    END IF;
    IF to_regproc('public.claim_ingest_slots') IS NOT NULL THEN
        GRANT EXECUTE ON FUNCTION public.claim_ingest_slots TO occupancy_app;
    END IF;
    IF to_regproc('public.store_readings') IS NOT NULL THEN
        GRANT EXECUTE ON FUNCTION public.store_readings TO occupancy_app;
    END IF;
END $$;

-- All users may read the revision of the schema, only the owner may change it
DO $$ BEGIN
    IF to_regclass('public.alembic_version') IS NOT NULL THEN
        REVOKE INSERT, UPDATE, DELETE ON public.alembic_version FROM occupancy_app;
    END IF;
END $$;

-- The owner and the backup user may take the maintenance lock: LOCK TABLE wants UPDATE, DELETE or TRUNCATE
DO $$ BEGIN
    IF to_regclass('public.maintenance_lock') IS NOT NULL THEN
        REVOKE INSERT, UPDATE, DELETE ON public.maintenance_lock FROM occupancy_app;
        GRANT UPDATE ON public.maintenance_lock TO occupancy_backup;
    END IF;
END $$;

-- Checks (occupancy_db/checks/facts.py): how many readings there are and when, without the names of rooms, zones and sensors
GRANT USAGE ON SCHEMA public TO occupancy_monitor;
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM occupancy_monitor;
DO $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        SELECT * FROM (VALUES
            ('public.alembic_version', 'version_num'),
            ('public.sensor_readings', 'timestamp'),
            ('public.latest_readings', 'timestamp'),
            ('public.silent_sensors', 'silence'),
            ('hourly.sums', 'hour, reading_count'),
            ('hourly.watermark', 'closed_before'),
            ('hourly.clock_state', 'now, checked_at, job, confirmed_at, confirmed_by, reached, contradiction')
        ) AS granted (relation, columns)
        WHERE to_regclass(relation) IS NOT NULL
    LOOP
        EXECUTE format('GRANT SELECT (%s) ON %s TO occupancy_monitor', wanted.columns, wanted.relation);
    END LOOP;
    IF to_regnamespace('hourly') IS NOT NULL THEN
        GRANT USAGE ON SCHEMA hourly TO occupancy_monitor;
    END IF;
END $$;

SELECT count(*) > 0 AS changed
FROM (
    (SELECT * FROM pg_temp.privileges() EXCEPT SELECT * FROM privileges_before)
    UNION ALL
    (SELECT * FROM privileges_before EXCEPT SELECT * FROM pg_temp.privileges())
) AS difference
