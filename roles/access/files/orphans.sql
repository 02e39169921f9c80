-- Users that an earlier run made from occupancy_users and that are not in it any more.
SELECT rolname AS name
FROM pg_roles
WHERE shobj_description(oid, 'pg_authid') = %(mark)s AND NOT rolname = ANY (string_to_array(%(names)s, ','))
