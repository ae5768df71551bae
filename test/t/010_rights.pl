# SPDX-License-Identifier: PostgreSQL
#
# Who may do what, and that nobody gains by what others run: the dispatcher acts as a role without rights of its own,
# ordinary users see their own, PUBLIC sees nothing.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use Test::More;

my $node = new_node('rights');
my $repo = make_repo('rights');
add_project($node, 'demo', $repo);
add_shell_agent($node);
ok(wait_dispatcher($node), 'the dispatcher is there');
sql($node, <<'SQL');
CREATE ROLE nobody_special LOGIN;
CREATE ROLE alice LOGIN IN ROLE boocoder_user;
CREATE ROLE bob LOGIN IN ROLE boocoder_user;
CREATE ROLE viewer LOGIN IN ROLE boocoder_viewer;
CREATE ROLE boss LOGIN IN ROLE boocoder_admin;
SQL

# as(ROLE, QUERY): the error of a query under that role, '' when it worked
sub as
{
	my ($role, $query) = @_;
	return sql_error($node, $query, params => [ '-U', $role ]);
}

sub asked
{
	my ($role, $query) = @_;
	return $node->safe_psql('postgres', $query, extra_params => [ '-U', $role ]);
}

# ---- PUBLIC ----

my @readable = split /\n/, sql($node, q{
	SELECT c.oid::regclass FROM pg_class c WHERE relnamespace = 'boocoder'::regnamespace AND relkind IN ('r', 'v', 'S', 'p')
		AND has_schema_privilege('nobody_special', 'boocoder', 'USAGE')});
is_deeply(\@readable, [], 'an ordinary role cannot even look into the schema');
my @granted = split /\n/, sql($node, q{
	SELECT c.oid::regclass || ' ' || a.privilege_type FROM pg_class c, aclexplode(c.relacl) a
		WHERE c.relnamespace = 'boocoder'::regnamespace AND a.grantee = 0
	UNION ALL
	SELECT p.oid::regprocedure || ' ' || a.privilege_type
		FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
		WHERE p.pronamespace = 'boocoder'::regnamespace AND a.grantee = 0});
is_deeply(\@granted, [], 'nothing is granted to PUBLIC');
like(as('nobody_special', 'SELECT * FROM boocoder.tasks'), qr/42501/, 'and it is told so');

my @loose = split /\n/, sql($node, q{
	SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
		WHERE p.pronamespace = 'boocoder'::regnamespace AND l.lanname IN ('sql', 'plpgsql')
			-- the names in a body that is no string were resolved when it was made
			AND p.prosqlbody IS NULL AND NOT EXISTS (SELECT FROM unnest(p.proconfig) c WHERE c LIKE 'search_path=%')});
# A procedure that commits can't: its body has to qualify every name.
is_deeply(\@loose, ['boocoder.attach(bigint,bigint)'], 'every function pins its search_path');
my @silent = split /\n/, sql($node, q{
	SELECT c.oid::regclass FROM pg_class c WHERE c.relnamespace = 'boocoder'::regnamespace AND c.relkind IN ('r', 'v', 'p')
		AND obj_description(c.oid, 'pg_class') IS NULL});
is_deeply(\@silent, [], 'every relation has a comment');
@silent = split /\n/, sql($node, q{
	SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'boocoder'::regnamespace
		AND obj_description(p.oid, 'pg_proc') IS NULL});
is_deeply(\@silent, [], 'every function too');

# ---- the dispatcher's role ----

my $worker = sql_row($node, q{SELECT a.usename, r.rolsuper, r.rolcreaterole, r.rolcreatedb, r.rolreplication, r.rolbypassrls
	FROM pg_stat_activity a JOIN pg_roles r ON r.rolname = a.usename WHERE a.backend_type = 'boocoder dispatcher'});
is($worker->{usename}, 'boocoder_worker', 'the dispatcher acts as boocoder_worker');
ok(!$worker->{$_}, "which has no $_") for qw(rolsuper rolcreaterole rolcreatedb rolreplication rolbypassrls);
is(sql($node, q{SELECT count(*) FROM pg_class c WHERE pg_get_userbyid(relowner) = 'boocoder_worker'}), '0', 'and owns nothing');
is(sql($node, q{SELECT coalesce(rolpassword, 'none') FROM pg_authid WHERE rolname = 'boocoder_worker'}), 'none', 'and has no password');

# ---- an ordinary user can't plant code; one who was let do it gains nothing ----

unlink '/tmp/boocoder-evil';
sql($node, q{
	CREATE TABLE public.loot (who text, super text, said text);
	GRANT ALL ON public.loot TO PUBLIC;
	GRANT CREATE ON SCHEMA public TO alice});
my $plant = q{
	CREATE FUNCTION public.evil() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO public.loot VALUES (current_user, current_setting('is_superuser'), tg_table_name);
		BEGIN
			ALTER ROLE alice SUPERUSER;
		EXCEPTION WHEN OTHERS THEN NULL;
		END;
		BEGIN
			EXECUTE 'COPY (SELECT 1) TO PROGRAM ''touch /tmp/boocoder-evil''';
		EXCEPTION WHEN OTHERS THEN NULL;
		END;
		BEGIN
			RESET SESSION AUTHORIZATION;
			RESET ROLE;
			ALTER ROLE alice SUPERUSER;
		EXCEPTION WHEN OTHERS THEN NULL;
		END;
		RETURN NULL;
	END $$;};
is(as('alice', $plant), '', 'alice writes a hostile trigger function');
for my $table (qw(tasks events message_parts messages worktrees pending_changes usage_events sessions chats projects providers))
{
	like(as('alice', "CREATE TRIGGER evil AFTER INSERT OR UPDATE ON boocoder.$table EXECUTE FUNCTION public.evil()"),
		qr/42501/, "but may not attach it to $table");
}
# Even when an administrator attaches it for her.
for my $table (qw(tasks events message_parts pending_changes))
{
	sql($node, "CREATE TRIGGER evil AFTER INSERT OR UPDATE ON boocoder.$table EXECUTE FUNCTION public.evil()");
}
# Whoever inserts runs it too, so that is not a superuser here.
my $task = asked('boss', "SELECT boocoder.run('echo x > x', 'demo', agent => 'shell')");
settles($node, $task, 'completed', 'a task runs past the trigger');
is(sql($node, q{SELECT count(*) FROM public.loot WHERE who = 'boocoder_worker' AND super <> 'off'}), '0',
	'the trigger never ran as a superuser in the dispatcher');
cmp_ok(sql($node, q{SELECT count(*) FROM public.loot WHERE who = 'boocoder_worker'}), '>', 0, 'though it ran');
is(sql($node, q{SELECT rolsuper FROM pg_roles WHERE rolname = 'alice'}), 'f', 'alice gained nothing');
ok(!-e '/tmp/boocoder-evil', 'no program was run');
# A trigger that fails harms its own task only.
sql($node, q{
	CREATE FUNCTION public.broken() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF new.path = 'poison' THEN RAISE EXCEPTION 'no'; END IF;
		RETURN NULL;
	END $$;
	CREATE TRIGGER broken AFTER INSERT ON boocoder.pending_changes FOR EACH ROW EXECUTE FUNCTION public.broken()});
my $poisoned = asked('boss', "SELECT boocoder.run('echo x > poison', 'demo', agent => 'shell')");
my $healthy = asked('boss', "SELECT boocoder.run('echo x > healthy', 'demo', agent => 'shell')");
settles($node, $healthy, 'completed', 'beside a task whose trigger fails another one completes');
settles($node, $poisoned, 'failed', 'and that one fails');
sql($node, "DROP TRIGGER $_->[0] ON boocoder.$_->[1]")
  for [ 'broken', 'pending_changes' ], map { [ 'evil', $_ ] } qw(tasks events message_parts pending_changes);

# Objects that shadow ours in a schema that alice may write to.
is(as('alice', q{CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE sql AS $$ INSERT INTO public.loot VALUES (current_user, current_setting('is_superuser'), 'now'); SELECT pg_catalog.now() $$;
	CREATE FUNCTION public.eq(text, text) RETURNS boolean LANGUAGE sql AS $$ INSERT INTO public.loot VALUES (current_user, current_setting('is_superuser'), 'eq'); SELECT true $$;
	CREATE OPERATOR public.= (LEFTARG = text, RIGHTARG = text, FUNCTION = public.eq)}), '', 'alice shadows a function and an operator');
$task = run_task($node, 'true', 'demo', agent => 'shell');
settles($node, $task, 'completed', 'a task runs');
is(sql($node, q{SELECT count(*) FROM public.loot WHERE said IN ('now', 'eq')}), '0', 'and used none of it');
sql($node, 'DROP OPERATOR public.= (text, text); DROP FUNCTION public.eq(text, text), public.now()');

# ---- tasks name agents, never programs ----

like(as('alice', "SELECT boocoder.register_provider('mine', 'command', ARRAY['/bin/sh'])"), qr/42501/, 'a user cannot register an agent');
like(as('alice', "INSERT INTO boocoder.providers (name, label, transport, command) VALUES ('mine', 'm', 'command', '{/bin/sh}')"),
	qr/42501/, 'nor write it into the table');
like(as('alice', "UPDATE boocoder.providers SET command = '{/bin/sh}'"), qr/42501/, 'nor change one');
like(as('alice', "SELECT boocoder.add_project('hers', '$repo')"), qr/42501/, 'nor add a project');
like(as('alice', 'SELECT env FROM boocoder.providers'), qr/42501/, 'nor read the environment of agents, where keys may be');
like(as('boss', 'SELECT env FROM boocoder.providers'), qr/^$|42501/, 'an administrator manages them');
is(as('boss', q{SELECT boocoder.register_provider('bosses', 'command', ARRAY['/bin/true'])}), '', 'an administrator registers an agent');
like(as('alice', "INSERT INTO boocoder.tasks (project_id, agent, input, submitted_by) VALUES (1, 'shell', 'x', 'bob')"), qr/ERROR/,
	'nobody enqueues in the name of another')
  or diag(sql($node, 'SELECT id, submitted_by FROM boocoder.tasks ORDER BY id DESC LIMIT 1'));
for my $function (split /\n/, sql($node, q{SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'boocoder'::regnamespace
	AND p.proname IN ('_start', '_next_actions', '_prepared', '_append', '_settle', '_job_done', '_inspect', '_host')}))
{
	is(sql($node, "SELECT has_function_privilege('alice', '$function', 'EXECUTE') OR has_function_privilege('boss', '$function', 'EXECUTE') AND '$function' !~ '_inspect|_host'"),
		'f', "$function is not for users");
}

# ---- own rows ----

my %project;
for my $who (qw(alice bob))
{
	make_repo("of-$who");
	$project{$who} = add_project($node, "of-$who", "$scratch/of-$who");
	sql($node, "UPDATE boocoder.projects SET owner = '$who' WHERE id = $project{$who}");
}
my $hers = asked('alice', "SELECT boocoder.run('echo secret-of-alice; echo x > x', 'of-alice', agent => 'shell')");
settles($node, $hers, 'completed', 'alice runs a task');
my %sees = (
	tasks => "SELECT count(*) FROM boocoder.tasks WHERE id = $hers",
	events => "SELECT count(*) FROM boocoder.events WHERE task_id = $hers",
	message_parts => "SELECT count(*) FROM boocoder.message_parts WHERE task_id = $hers",
	messages => "SELECT count(*) FROM boocoder.messages WHERE task_id = $hers",
	pending_changes => "SELECT count(*) FROM boocoder.pending_changes WHERE task_id = $hers",
	projects => "SELECT count(*) FROM boocoder.projects WHERE id = $project{alice}",
	sessions => "SELECT count(*) FROM boocoder.sessions WHERE project_id = $project{alice}",
	worktrees => "SELECT count(*) FROM boocoder.worktrees WHERE project_id = $project{alice}",
	events_since => "SELECT count(*) FROM boocoder.events_since($hers, 0)",
	ls => "SELECT count(*) FROM boocoder.ls() WHERE id = $hers",
);
for my $what (sort keys %sees)
{
	cmp_ok(asked('alice', $sees{$what}), '>', 0, "alice sees her own $what");
	my $error = as('bob', $sees{$what});
	is($error =~ /ERROR/ ? 0 : asked('bob', $sees{$what}), 0, "bob does not see alice's $what");
	$error = as('viewer', $sees{$what});
	is($error =~ /ERROR/ ? 0 : asked('viewer', $sees{$what}), 0, "nor does a viewer");
	cmp_ok(asked('boss', $sees{$what}), '>', 0, "an administrator sees $what");
}
for my $call ("cancel($hers)", "retry($hers)", "apply($hers)", "reject($hers)", "diff($hers)", "task_detail($hers)", "send($hers, 'x')",
	"wait($hers, interval '1 s')", "run('x', 'of-alice', agent => 'shell')")
{
	my $error = as('bob', "SELECT boocoder.$call");
	my $answer = $error eq '' ? asked('bob', "SELECT boocoder.$call") : '';
	ok($error =~ /ERROR/ || $answer eq '' || $answer eq 'f', "bob gets nothing from $call") or diag($answer);
	unlike("$error$answer", qr/secret-of-alice/, "and learns nothing");
}
is(sql($node, "SELECT count(*) FROM boocoder.pending_changes WHERE task_id = $hers AND status <> 'pending'"), '0',
	"bob decided nothing about alice's changes");
like(as('viewer', "SELECT boocoder.run('x', 'of-alice', agent => 'shell')"), qr/ERROR/, 'a viewer enqueues nothing');
like(as('alice', "UPDATE boocoder.events SET kind = 'forged'"), qr/ERROR/, 'events are append-only, even for their owner');
like(as('alice', 'DELETE FROM boocoder.events'), qr/ERROR/, 'nor can they be deleted');
like(as('alice', "UPDATE boocoder.pending_changes SET diff = 'forged' WHERE task_id = $hers"), qr/ERROR/, 'a diff cannot be changed');

sql($node, "UPDATE boocoder.projects SET shared = true WHERE id = $project{alice}");
cmp_ok(asked('bob', $sees{tasks}), '>', 0, 'a shared project is seen by others');

# A role that is gone cannot have its tasks run.
my $orphan = asked('bob', "SELECT boocoder.run('echo ran', 'of-bob', agent => 'shell', run_at => now() + interval '1 s')");
sql($node, 'REVOKE boocoder_user FROM bob; ALTER ROLE bob NOLOGIN');
sql($node, "UPDATE boocoder.projects SET owner = 'alice' WHERE id = $project{bob}");
sql($node, 'DROP OWNED BY bob; DROP ROLE bob');
settles($node, $orphan, 'failed', 'the task of a role that was dropped fails');

ok(none_left($node), 'no agent process is left');
$node->stop('fast');
done_testing();
