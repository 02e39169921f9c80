-- The state of the running server as one JSON object, for the probe: its files, the users and databases, what it can do.
SELECT json_build_object(
    -- A file is newer than what the server loaded (file times have whole seconds).
    'stale', (
        SELECT bool_or((pg_stat_file(path)).modification >= date_trunc('second', pg_conf_load_time()))
        FROM unnest(ARRAY[
            current_setting('config_file'), current_setting('hba_file'), current_setting('ident_file'),
            current_setting('ssl_cert_file')
        ]) AS path
    ),
    -- A setting that was changed or removed waits for a restart. A removed one is an error without a file. What waits in
    -- another file was set by ALTER SYSTEM.
    'restart', (
        SELECT coalesce(bool_or(s.context = 'postmaster' OR f.sourcefile IS NULL), false)
        FROM pg_file_settings AS f LEFT JOIN pg_settings AS s USING (name)
        WHERE f.error IS NOT NULL AND coalesce(f.sourcefile = current_setting('config_file'), true)
    ),
    -- The settings that need a restart, with their values in the file; null is the default
    'fixed', (
        SELECT json_object_agg(s.name, f.setting)
        FROM pg_settings AS s
        LEFT JOIN pg_file_settings AS f ON f.name = s.name AND f.sourcefile = current_setting('config_file')
        WHERE s.context = 'postmaster'
    ),
    -- Errors in the files, which a reload would not accept
    'mistakes', (
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
    ),
    -- Settings that were made outside the files: ALTER SYSTEM, ALTER DATABASE
    'strays', (
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
    ),
    'wal_codecs', (SELECT to_json(enumvals) FROM pg_settings WHERE name = 'wal_compression'),
    'extensions', (SELECT coalesce(json_agg(extname), '[]') FROM pg_extension),
    'databases', (
        SELECT json_object_agg(
            datname, json_build_object('owner', pg_get_userbyid(datdba), 'encoding', pg_encoding_to_char(encoding))
        )
        FROM pg_database
    ),
    -- The secret stays on the host: the probe compares it with the user's password file.
    'roles', (
        SELECT json_object_agg(
            rolname, json_build_object(
                'flags', array_to_string(ARRAY[
                    CASE WHEN rolcanlogin THEN 'LOGIN' ELSE 'NOLOGIN' END,
                    CASE WHEN rolsuper THEN 'SUPERUSER' ELSE 'NOSUPERUSER' END,
                    CASE WHEN rolcreatedb THEN 'CREATEDB' ELSE 'NOCREATEDB' END,
                    CASE WHEN rolcreaterole THEN 'CREATEROLE' ELSE 'NOCREATEROLE' END,
                    CASE WHEN rolreplication THEN 'REPLICATION' ELSE 'NOREPLICATION' END,
                    CASE WHEN rolbypassrls THEN 'BYPASSRLS' ELSE 'NOBYPASSRLS' END
                ], ','),
                'limit', rolconnlimit,
                'expires', rolvaliduntil,
                'secret', rolpassword,
                'comment', shobj_description(oid, 'pg_authid'),
                'settings', (
                    SELECT coalesce(to_json(setconfig), '[]')
                    FROM (SELECT) AS one LEFT JOIN pg_db_role_setting ON setrole = pg_authid.oid AND setdatabase = 0
                ),
                'member_of', (
                    SELECT coalesce(json_agg(roleid::regrole::text), '[]')
                    FROM pg_auth_members WHERE member = pg_authid.oid
                )
            )
        )
        FROM pg_authid
        WHERE rolname NOT LIKE 'pg\_%'
    )
)
