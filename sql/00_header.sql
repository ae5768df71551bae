-- SPDX-License-Identifier: PostgreSQL
-- boocoder: install script, assembled from sql/NN_*.sql in the order of their numbers.
-- SQLSTATEs of this extension:
--   BC001  a move between states that is not allowed
--   BC002  no such row, or it is not yours
--   BC003  not a usable repository
--   BC004  the call does not fit the state of its object
--   BC005  bad argument
\echo Use "CREATE EXTENSION boocoder" to load this file. \quit

DO $$
BEGIN
	IF pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.<>) 'UTF8' THEN
		RAISE EXCEPTION 'boocoder needs a database with the encoding UTF8'
			USING ERRCODE = 'feature_not_supported',
				  HINT = 'Create one with CREATE DATABASE ... ENCODING ''UTF8'' TEMPLATE template0.';
	END IF;
END
$$;

-- Not the control file's schema: that would adopt one that somebody else prepared.
CREATE SCHEMA boocoder;
COMMENT ON SCHEMA boocoder IS 'coding agents: tasks, what they stream, what they changed, what they cost';
REVOKE ALL ON SCHEMA boocoder FROM PUBLIC;
