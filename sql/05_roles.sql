-- SPDX-License-Identifier: PostgreSQL
-- Roles belong to the cluster, so another database may have made them already.
-- One that somebody else prepared with more rights than it should have is refused.
DO $$
DECLARE
	name text;
	role record;
BEGIN
	FOREACH name IN ARRAY ARRAY['boocoder_viewer', 'boocoder_user', 'boocoder_admin', 'boocoder_worker'] LOOP
		SELECT r.oid, r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls AS strong
		  INTO role FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) name::pg_catalog.name;
		IF NOT FOUND THEN
			EXECUTE pg_catalog.format('CREATE ROLE %I %s', name,
				CASE name WHEN 'boocoder_worker' THEN 'LOGIN NOINHERIT' ELSE 'NOLOGIN' END);
		ELSIF role.strong THEN
			RAISE EXCEPTION 'role "%" exists and has rights that boocoder does not give it', name
				USING ERRCODE = 'BC004', HINT = 'Rename that role, or take its special attributes away.';
		ELSIF name OPERATOR(pg_catalog.=) 'boocoder_worker' AND EXISTS (
				SELECT 1 FROM pg_catalog.pg_auth_members m
				  JOIN pg_catalog.pg_roles g ON g.oid OPERATOR(pg_catalog.=) m.member
				 WHERE m.roleid OPERATOR(pg_catalog.=) role.oid AND NOT g.rolsuper) THEN
			RAISE EXCEPTION 'role "boocoder_worker" has members'
				USING ERRCODE = 'BC004', HINT = 'Only the dispatcher may act as that role; revoke it from its members.';
		ELSIF name OPERATOR(pg_catalog.=) 'boocoder_worker' AND (
				EXISTS (SELECT 1 FROM pg_catalog.pg_auth_members m WHERE m.member OPERATOR(pg_catalog.=) role.oid)
				OR EXISTS (SELECT 1 FROM pg_catalog.pg_authid a
							WHERE a.oid OPERATOR(pg_catalog.=) role.oid
							  AND (a.rolpassword IS NOT NULL OR NOT a.rolcanlogin OR a.rolinherit))) THEN
			RAISE EXCEPTION 'role "boocoder_worker" is not as boocoder makes it'
				USING ERRCODE = 'BC004',
					  HINT = 'It is LOGIN NOINHERIT, has no password and is a member of no role; drop it to have it made anew.';
		END IF;
	END LOOP;
	EXECUTE pg_catalog.format('GRANT CONNECT ON DATABASE %I TO boocoder_worker', pg_catalog.current_database());
END
$$;

GRANT boocoder_viewer TO boocoder_user;
GRANT boocoder_user TO boocoder_admin;
COMMENT ON ROLE boocoder_viewer IS 'boocoder: may see its own and shared projects';
COMMENT ON ROLE boocoder_user IS 'boocoder: may enqueue tasks and decide about their changes';
COMMENT ON ROLE boocoder_admin IS 'boocoder: may manage projects and providers, and sees everything';
COMMENT ON ROLE boocoder_worker IS 'boocoder: the dispatcher acts as this role; nobody else should';
GRANT USAGE ON SCHEMA boocoder TO boocoder_viewer, boocoder_worker;
