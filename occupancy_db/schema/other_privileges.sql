-- Privileges on a database besides the product's own, converged in one transaction: its owner and the backup user may connect to
-- it, and nobody else. The access role runs this script as the superuser, a restore runs it as the owner of the database. The last
-- statement returns whether anything was changed; in check mode the transaction is rolled back.

CREATE TEMPORARY TABLE privileges_before ON COMMIT DROP AS
SELECT datacl::text FROM pg_database WHERE datname = current_database();

DO $$ BEGIN
    EXECUTE format(
        'REVOKE ALL ON DATABASE %I FROM PUBLIC, occupancy, occupancy_app, occupancy_readonly, occupancy_monitor',
        current_database()
    );
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO occupancy_backup', current_database());
END $$;

SELECT datacl::text IS DISTINCT FROM (SELECT datacl FROM privileges_before) AS changed
FROM pg_database WHERE datname = current_database()
