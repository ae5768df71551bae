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
my $done_session = sql($node, "SELECT session_id FROM boocoder.tasks WHERE id = $done", 'source');
sub add_fake_acp_in
{
	my ($database) = @_;
	sql($node, "SELECT boocoder.register_provider('fake', 'acp', ARRAY['$agents_dir/fake-acp', '--resume'])", $database);
}

# A worktree in the trash whose agent has a session; a change of a person, which has no task; and one that is removed.
add_fake_acp_in('source');
my $spoken = run_task($node, 'text spoken', 'demo', agent => 'fake', database => 'source');
settles($node, $spoken, 'completed', 'an agent has a session', 30, 'source');
sub worktree_of { return sql_row($node, "SELECT w.* FROM boocoder.worktrees w JOIN boocoder.tasks t USING (session_id) WHERE t.id = $_[0]", 'source') }
my $written = run_task($node, 'echo kept > kept.txt', 'demo', agent => 'shell', session => worktree_of($spoken)->{session_id}, database => 'source');
settles($node, $written, 'completed', 'another has written a file', 30, 'source');
my $trashed = worktree_of($spoken);
cmp_ok(sql($node, "SELECT count(*) FROM boocoder.agent_sessions WHERE worktree_id = $trashed->{id}", 'source'), '>', 0, 'which refers to its worktree');
sql($node, "SELECT boocoder.queue_manual_change($done_session, 'by-hand.txt', 'by hand')", 'source');
ok(until_true(sub { sql($node, "SELECT count(*) FROM boocoder.pending_changes WHERE task_id IS NULL AND path = 'by-hand.txt'", 'source') eq '1' }), 'a person changes a file');
reconfigure($node, "SET boocoder.worktree_grace = '1h'");
until_true(sub { sql($node, 'SHOW boocoder.worktree_grace', 'source') eq '1h' });
sql($node, "SELECT boocoder.remove_worktree($trashed->{id}, true)", 'source');
is(worktree_of($spoken)->{status}, 'trashed', 'a worktree is in the trash');

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
is(sql($node, "SELECT count(*) FROM boocoder.pending_changes WHERE path = 'by-hand.txt' AND status = 'pending'", 'restored'), '1', 'with what a person changed');
starts_nothing('restored', 'a restored dump');

sql($node, 'CREATE DATABASE copied TEMPLATE source');
starts_nothing('copied', 'a copy by template');

# The trash of the original is not the copies' to empty, whatever grace they have.
reconfigure($node, "SET boocoder.worktree_grace = '0'");
for my $database (qw(restored copied))
{
	ok(until_true(sub { sql($node, "SELECT count(*) FROM boocoder.worktrees WHERE status <> 'removed' AND path NOT LIKE '%/' || (boocoder._host() ->> 'place') || '/%'", $database) eq '0' }),
		"$database: has given up the worktrees of the original");
}
my $after = run_task($node, 'true', 'probe', agent => 'probe', database => 'copied');
settles($node, $after, 'completed', 'the copy works on', 30, 'copied');
ok(until_true(sub { worktree_of($spoken)->{status} eq 'removed' }), 'the original empties it');
isnt(worktree_of($spoken)->{archived_ref}, undef, 'and archives what was in it');

# The original goes on as if nothing had been.
ok(wait_dispatcher($node, 10, 'source'), 'the original has its dispatcher');
my $path = sql($node, "SELECT w.path FROM boocoder.worktrees w JOIN boocoder.tasks t USING (session_id) WHERE t.id = $running", 'source');
ok(until_true(sub { -d $path }), 'its worktree is there');
spew("$path/open", '');
settles($node, $running, 'completed', 'what ran completes', 30, 'source');
settles($node, $waiting, 'completed', 'what waited runs', 30, 'source');

$node->stop('fast');
done_testing();
