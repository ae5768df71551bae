-- SPDX-License-Identifier: PostgreSQL
-- The generated parts of doc/sql.md, from the comments on the objects:
--   psql -XAtq -v part=functions -f doc/sql.gen.sql      (or part=tables)
-- test/t/017_docs.pl compares; BOOCODER_WRITE_DOCS=1 makes it write.
SELECT :'part' = 'functions' AS functions \gset
\if :functions
SELECT format(E'### `%s(%s)`%s\n\n%s.\n', p.proname, pg_get_function_arguments(p.oid),
	CASE WHEN p.prokind = 'f' THEN ' → `' || pg_get_function_result(p.oid) || '`' ELSE ' (procedure)' END,
	rtrim(obj_description(p.oid, 'pg_proc'), '.'))
  FROM pg_proc p WHERE p.pronamespace = 'boocoder'::regnamespace AND p.proname !~ '^_' ORDER BY p.proname COLLATE "C";
SELECT format(E'### View `%s`\n\n%s. Columns: %s.\n', c.relname, obj_description(c.oid, 'pg_class'),
	(SELECT string_agg('`' || a.attname || '`', ', ' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0))
  FROM pg_class c WHERE c.relnamespace = 'boocoder'::regnamespace AND c.relkind = 'v' ORDER BY c.relname COLLATE "C";
\else
SELECT format(E'### `%s`\n\n%s.\n\n| column | type | |\n| --- | --- | --- |\n%s\n', c.relname, obj_description(c.oid, 'pg_class'),
	(SELECT string_agg(format('| `%s` | %s | %s |', a.attname, format_type(a.atttypid, a.atttypmod), coalesce(col_description(c.oid, a.attnum), '')), E'\n' ORDER BY a.attnum)
	   FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped))
  FROM pg_class c WHERE c.relnamespace = 'boocoder'::regnamespace AND c.relkind = 'r' AND c.relname NOT IN ('home', 'task_transitions', 'jobs')
 ORDER BY c.relname COLLATE "C";
\endif
