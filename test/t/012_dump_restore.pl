# SPDX-License-Identifier: PostgreSQL
#
# A copy of a database must not do the original's work again: a restored dump and a database made from a template start
# nothing.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use IPC::Run ();
use Test::More;

my $node = new_node('dump', conf => "boocoder.max_running = 1\nboocoder.poll_interval = '200ms'");
sql($node, 'CREATE DATABASE source');
sql($node, 'CREATE EXTENSION boocoder', 'source');
my $repo = make_repo('dump');
add_project($node, 'demo', $repo, 'source');
add_shell_agent($node, 'shell', 'source');
ok(wait_dispatcher($node, 10, 'source'), 'the dispatcher is there');

my $done = run_task($node, 'echo done > done.txt', 'demo', agent => 'shell', database => 'source');
settles($node, $done, 'completed', 'a task is done', 30, 'source');
my $running = run_task($node, 'echo running; while [ ! -e open ]; do sleep 0.1; done', 'demo', agent => 'shell', database => 'source');
ok(until_true(sub { task_state($node, $running, 'source') eq 'running' }), 'one runs');
my $waiting = run_task($node, 'echo waiting', 'demo', agent => 'shell', database => 'source');

my $dump = "$scratch/source.sql";
my ($out, $err);
IPC::Run::run([ 'pg_dump', '-d', $node->connstr('source'), '-f', $dump ], '2>', \$err) or BAIL_OUT("pg_dump: $err");
pass('pg_dump works while tasks run');

sub starts_nothing
{
	my ($database, $what) = @_;
	ok(wait_dispatcher($node, 10, $database), "$what: has a dispatcher");
	# A task of its own is done, so the dispatcher had looked at all that was there before.
	sql($node, "SELECT boocoder.register_provider('probe', 'command', ARRAY['/bin/sh', '-c', 'eval \"\$0\"'])", $database);
	make_repo("probe-$database");
	add_project($node, 'probe', "$scratch/probe-$database", $database);
	my $probe = run_task($node, 'echo probe', 'probe', agent => 'probe', priority => -1000, database => $database);
	settles($node, $probe, 'completed', "$what: runs new tasks", 30, $database);
	is(sql($node, "SELECT count(*) FROM boocoder.tasks WHERE id <> $probe AND (state = 'running' OR started_at > (SELECT created_at FROM boocoder.tasks WHERE id = $probe))", $database),
		'0', "$what: ran nothing that came with the copy");
	is(sql($node, "SELECT count(*) FROM boocoder.tasks WHERE id <> $probe AND state IN ('pending', 'running')", $database), '0',
		"$what: and nothing of it waits to run");
}

sql($node, 'CREATE DATABASE restored');
IPC::Run::run([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), '-f', $dump ],
	'>', \$out, '2>', \$err) or diag($err);
unlike($err, qr/ERROR/, 'the dump is restored without errors');
starts_nothing('restored', 'a restored dump');

sql($node, 'CREATE DATABASE copied TEMPLATE source');
starts_nothing('copied', 'a copy by template');

# The original goes on as if nothing had been.
ok(wait_dispatcher($node, 10, 'source'), 'the original has its dispatcher');
my $path = sql($node, "SELECT w.path FROM boocoder.worktrees w JOIN boocoder.tasks t USING (session_id) WHERE t.id = $running", 'source');
ok(until_true(sub { -d $path }), 'its worktree is there');
spew("$path/open", '');
settles($node, $running, 'completed', 'what ran completes', 30, 'source');
settles($node, $waiting, 'completed', 'what waited runs', 30, 'source');

$node->stop('fast');
done_testing();
