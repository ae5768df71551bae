-- SPDX-License-Identifier: PostgreSQL
-- The objects of the extension as lines of text: the same for a database that was updated as for a new one.
SELECT line FROM (
	SELECT 'column ' || a.attrelid::regclass || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
		|| CASE WHEN a.attnotnull THEN ' not null' ELSE '' END || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '') || a.attidentity::text
	  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
	 WHERE c.relnamespace = 'boocoder'::regnamespace AND c.relkind IN ('r', 'v', 'S') AND a.attnum > 0 AND NOT a.attisdropped
	UNION ALL
	SELECT 'constraint ' || c.conrelid::regclass || ' ' || c.conname || ' ' || pg_get_constraintdef(c.oid)
	  FROM pg_constraint c WHERE c.connamespace = 'boocoder'::regnamespace
	UNION ALL
	SELECT 'index ' || pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
	 WHERE c.relnamespace = 'boocoder'::regnamespace
	UNION ALL
	SELECT 'trigger ' || pg_get_triggerdef(t.oid) || ' ' || t.tgenabled::text FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
	 WHERE c.relnamespace = 'boocoder'::regnamespace AND NOT t.tgisinternal
	UNION ALL
	SELECT 'policy ' || p.schemaname || '.' || p.tablename || ' ' || p.policyname || ' ' || concat_ws(' ', p.permissive, p.roles, p.cmd, p.qual, p.with_check)
	  FROM pg_policies p WHERE p.schemaname = 'boocoder'
	UNION ALL
	SELECT 'row security ' || c.oid::regclass FROM pg_class c WHERE c.relnamespace = 'boocoder'::regnamespace AND c.relrowsecurity
	UNION ALL
	SELECT 'function ' || pg_get_functiondef(p.oid) FROM pg_proc p WHERE p.pronamespace = 'boocoder'::regnamespace
	UNION ALL
	SELECT 'view ' || c.oid::regclass || pg_get_viewdef(c.oid) FROM pg_class c WHERE c.relnamespace = 'boocoder'::regnamespace AND c.relkind = 'v'
	UNION ALL
	SELECT 'right ' || x.name || ' ' || a.privilege_type || ' ' || a.grantee::regrole
	  FROM (SELECT 'table ' || c.oid::regclass, c.relacl FROM pg_class c WHERE c.relnamespace = 'boocoder'::regnamespace
			UNION ALL
			SELECT 'column ' || t.attrelid::regclass || '.' || t.attname, t.attacl FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid
			 WHERE c.relnamespace = 'boocoder'::regnamespace AND NOT t.attisdropped
			UNION ALL
			SELECT 'function ' || p.oid::regprocedure, coalesce(p.proacl, '{=X/postgres}') FROM pg_proc p
			 WHERE p.pronamespace = 'boocoder'::regnamespace) x (name, acl), aclexplode(x.acl) a
	UNION ALL
	SELECT 'comment ' || i.type || ' ' || i.identity || ': ' || d.description
	  FROM pg_description d, pg_identify_object(d.classoid, d.objoid, d.objsubid) i WHERE i.identity ~ '^"?boocoder|boocoder\.'
	UNION ALL
	SELECT 'dumped ' || (x.relation)::regclass || ' ' || x.condition
	  FROM pg_extension e, unnest(e.extconfig, e.extcondition) x (relation, condition) WHERE e.extname = 'boocoder'
	UNION ALL
	SELECT 'member ' || pg_describe_object(d.classid, d.objid, 0) FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
	 WHERE d.refclassid = 'pg_extension'::regclass AND e.extname = 'boocoder' AND d.deptype = 'e'
	UNION ALL
	SELECT 'row ' || to_jsonb(t)::text FROM boocoder.task_transitions t
	UNION ALL
	SELECT 'row ' || to_jsonb(p)::text FROM boocoder.providers p) lines (line)
 ORDER BY line COLLATE "C";
