-- Open sessions of a dropped user would keep its privileges.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %(name)s
