-- SPDX-License-Identifier: PostgreSQL
\i test/regress.psql
-- PUBLIC can do nothing.
SELECT c.oid::regclass AS relation, a.privilege_type FROM pg_class c, aclexplode(c.relacl) a
 WHERE c.relnamespace = 'boocoder'::regnamespace AND a.grantee = 0;
SELECT p.attrelid::regclass AS relation, p.attname, a.privilege_type FROM pg_attribute p, aclexplode(p.attacl) a
 WHERE p.attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'boocoder'::regnamespace) AND a.grantee = 0;
SELECT p.oid::regprocedure AS function, a.privilege_type
  FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
 WHERE p.pronamespace = 'boocoder'::regnamespace AND a.grantee = 0;
SELECT a.privilege_type FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname = 'boocoder' AND a.grantee = 0;

-- Whom the rights are given to, and what nobody has: TRIGGER, REFERENCES, TRUNCATE.
SELECT DISTINCT a.grantee::regrole AS role, a.privilege_type FROM pg_class c, aclexplode(c.relacl) a
 WHERE c.relnamespace = 'boocoder'::regnamespace AND a.grantee <> c.relowner ORDER BY 1, 2;
SELECT c.relname, a.grantee::regrole AS role, a.privilege_type FROM pg_class c, aclexplode(c.relacl) a
 WHERE c.relnamespace = 'boocoder'::regnamespace AND a.grantee <> c.relowner
   AND a.privilege_type IN ('INSERT', 'UPDATE', 'DELETE') ORDER BY c.relname COLLATE "C", a.grantee::regrole::text COLLATE "C", 3;
-- People have rights on columns.
SELECT t.attrelid::regclass AS relation, a.privilege_type, a.grantee::regrole AS role,
	   string_agg(t.attname, ' ' ORDER BY t.attname COLLATE "C") AS columns
  FROM pg_attribute t, aclexplode(t.attacl) a
 WHERE t.attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'boocoder'::regnamespace)
   AND a.privilege_type <> 'SELECT' AND a.grantee <> 'boocoder_worker'::regrole
 GROUP BY 1, 2, 3 ORDER BY t.attrelid::regclass::text COLLATE "C", 2;
SELECT p.proname, a.grantee::regrole AS role FROM pg_proc p, aclexplode(p.proacl) a
 WHERE p.pronamespace = 'boocoder'::regnamespace AND a.grantee <> p.proowner AND p.proname !~ '^_'
 ORDER BY 2::text, p.proname COLLATE "C";

-- The dispatcher's role, and which role is part of which.
SELECT rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls
  FROM pg_roles WHERE rolname LIKE 'boocoder%' ORDER BY rolname COLLATE "C";
SELECT m.roleid::regrole AS role, m.member::regrole FROM pg_auth_members m
 WHERE m.member::regrole::text LIKE 'boocoder%' ORDER BY m.roleid::regrole::text COLLATE "C";
SELECT count(*) AS members_of_the_worker FROM pg_auth_members WHERE roleid = 'boocoder_worker'::regrole;

-- Every object has a comment; every function pins its search_path, except what C does and what commits.
SELECT pg_describe_object(d.classid, d.objid, 0) AS uncommented FROM pg_depend d
 WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
   AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'boocoder')
   AND obj_description(d.objid, d.classid::regclass::name) IS NULL
   AND NOT (d.classid = 'pg_class'::regclass AND EXISTS (SELECT 1 FROM pg_depend i
			WHERE i.classid = d.classid AND i.objid = d.objid AND i.deptype = 'i'));
SELECT t.tgrelid::regclass, t.tgname AS uncommented FROM pg_trigger t
 WHERE NOT t.tgisinternal AND t.tgrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'boocoder'::regnamespace)
   AND obj_description(t.oid, 'pg_trigger') IS NULL;
SELECT p.polrelid::regclass, p.polname AS uncommented FROM pg_policy p
 WHERE p.polrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'boocoder'::regnamespace)
   AND obj_description(p.oid, 'pg_policy') IS NULL;
SELECT p.proname AS unpinned, l.lanname, p.prokind FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
 WHERE p.pronamespace = 'boocoder'::regnamespace AND l.lanname <> 'c'
   AND p.prosqlbody IS NULL AND NOT EXISTS (SELECT FROM unnest(p.proconfig) c WHERE c ~ '^search_path=pg_catalog, pg_temp$');
SELECT p.oid::regprocedure AS definer FROM pg_proc p WHERE p.pronamespace = 'boocoder'::regnamespace AND p.prosecdef;
SELECT c.relname AS without_rls FROM pg_class c
 WHERE c.relnamespace = 'boocoder'::regnamespace AND c.relkind = 'r' AND NOT c.relrowsecurity ORDER BY 1;

-- A role that was prepared for us is refused.
DROP EXTENSION boocoder;
ALTER ROLE boocoder_viewer CREATEDB;
CREATE EXTENSION boocoder;
ALTER ROLE boocoder_viewer NOCREATEDB;
GRANT boocoder_worker TO regress_nobody;
CREATE EXTENSION boocoder;
REVOKE boocoder_worker FROM regress_nobody;
GRANT pg_execute_server_program TO boocoder_worker;
CREATE EXTENSION boocoder;
REVOKE pg_execute_server_program FROM boocoder_worker;
-- So is a schema.
CREATE SCHEMA boocoder AUTHORIZATION regress_nobody;
CREATE EXTENSION boocoder;
DROP SCHEMA boocoder;
