-- A dropped user's open sessions would go on with its rights.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %(name)s
