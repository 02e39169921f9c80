-- How the running server stands to its files: "stale" when one of them is newer than what it loaded (file times have whole
-- seconds), "restart" when a setting that was changed or taken out waits for one, "mistakes" that a reload would not take up,
-- "strays" that somebody has set past the files (ALTER SYSTEM, ALTER DATABASE).
SELECT
    (
        SELECT bool_or((pg_stat_file(path)).modification >= date_trunc('second', pg_conf_load_time()))
        FROM unnest(ARRAY[
            current_setting('config_file'), current_setting('hba_file'), current_setting('ident_file'),
            current_setting('ssl_cert_file')
        ]) AS path
    ) AS stale,
    (
        -- One that was taken out of the file is an error in no file. What waits in another file (ALTER SYSTEM) is somebody's.
        SELECT coalesce(bool_or(s.context = 'postmaster' OR f.sourcefile IS NULL), false)
        FROM pg_file_settings AS f LEFT JOIN pg_settings AS s USING (name)
        WHERE f.error IS NOT NULL AND coalesce(f.sourcefile = current_setting('config_file'), true)
    ) AS restart,
    (
        SELECT string_agg(mistake, '; ')
        FROM (
            SELECT format('%s, line %s: %s', f.sourcefile, f.sourceline, f.error) AS mistake
            FROM pg_file_settings AS f LEFT JOIN pg_settings AS s USING (name)
            WHERE f.error IS NOT NULL AND f.sourcefile IS NOT NULL AND s.context IS DISTINCT FROM 'postmaster'
            UNION ALL
            SELECT format('pg_hba.conf, line %s: %s', line_number, error)
            FROM pg_hba_file_rules
            WHERE error IS NOT NULL
        ) AS mistakes
    ) AS mistakes,
    (
        SELECT string_agg(stray, ', ')
        FROM (
            SELECT format('%s = %s', name, setting) AS stray
            FROM pg_file_settings
            WHERE sourcefile <> current_setting('config_file')
            UNION ALL
            SELECT format('%s in %s', setting, coalesce(datname, 'every database'))
            FROM pg_db_role_setting LEFT JOIN pg_database AS d ON d.oid = setdatabase, unnest(setconfig) AS setting
            WHERE setrole = 0
        ) AS strays
    ) AS strays
