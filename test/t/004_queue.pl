# SPDX-License-Identifier: PostgreSQL
#
# Who runs when: priority, one task a session, the limit on all, run_at, time-outs; and tasks that can't run fail with a
# reason and don't hold up the next one.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use File::Path qw(remove_tree);
use Test::More;

my $allowed = "$scratch/allowed";
mkdir $allowed;
my $node = new_node('queue', conf => <<'CONF');
boocoder.max_running = 1
boocoder.poll_interval = '1s'
CONF
my $repo = make_repo('allowed/queue');
my $project = add_project($node, 'demo', $repo);
add_shell_agent($node);
ok(wait_dispatcher($node), 'the dispatcher is there');

sub set
{
	my ($line) = @_;
	$node->append_conf('postgresql.conf', $line);
	$node->reload;
	my ($name, $value) = $line =~ /^(\S+)\s*=\s*'?([^']*)'?$/;
	until_true(sub { sql($node, "SHOW $name") eq $value }, 5) or die "$name did not change";
}

sub started_order
{
	my (@tasks) = @_;
	my $list = join ',', @tasks;
	return sql($node, "SELECT string_agg(id::text, ' ' ORDER BY started_at) FROM boocoder.tasks WHERE id IN ($list)");
}

# ---- order ----

# All in one transaction: they become visible together, and with one place to run their order is the queue's.
my ($low, $older, $newer, $urgent) = split /\n/, sql($node, <<"SQL");
INSERT INTO boocoder.tasks (project_id, agent, input, priority)
	SELECT $project, 'shell', 'true', p FROM unnest(ARRAY[-1, 0, 0, 5]) WITH ORDINALITY AS u (p, n) ORDER BY n
	RETURNING id
SQL
settles($node, $_, 'completed', "task $_ completes") for ($urgent, $older, $newer, $low);
is(started_order($low, $older, $newer, $urgent), "$urgent $older $newer $low",
	'higher priority first, then age');

my $overlap = sql($node, q{
	SELECT count(*) FROM boocoder.tasks a JOIN boocoder.tasks b
		ON a.id < b.id AND tstzrange(a.started_at, a.ended_at) && tstzrange(b.started_at, b.ended_at)});
is($overlap, '0', 'max_running = 1: never two at once');

# ---- the limit, sessions ----

set("boocoder.max_running = 3");
my @wave = map {
	sql($node, "SELECT boocoder.run('touch ran; while [ ! -e open ]; do sleep 0.05; done', 'demo', agent => 'shell')")
} 1 .. 5;
my $list = join ',', @wave;
ok(until_true(sub { sql($node, "SELECT count(*) FROM boocoder.tasks WHERE id IN ($list) AND state = 'running'") eq '3' }),
	'three of five run');
is(sql($node, "SELECT count(*) FROM boocoder.tasks WHERE id IN ($list) AND state = 'pending'"), '2', 'two wait');
# Each is let go by a file in its worktree; never more than three may be seen running.
my $most = 0;
ok(until_true(sub {
	my $running = sql($node, "SELECT count(*) FROM boocoder.tasks WHERE id IN ($list) AND state = 'running'");
	$most = $running if $running > $most;
	for my $w (sql_rows($node, "SELECT w.path FROM boocoder.tasks t JOIN boocoder.worktrees w USING (session_id)"
			. " WHERE t.id IN ($list) AND t.state = 'running' AND w.path IS NOT NULL"))
	{
		spew("$w->{path}/open", '') if -d $w->{path};
	}
	sql($node, "SELECT count(*) FROM boocoder.tasks WHERE id IN ($list) AND state = 'completed'") eq '5' }),
	'all five complete');
cmp_ok($most, '<=', 3, 'never more than max_running');

my $session = sql($node, "SELECT session_id FROM boocoder.tasks WHERE id = $wave[0]");
my @serial = map { run_task($node, "echo $_ >> order.txt", 'demo', agent => 'shell', session => $session) } 1 .. 4;
settles($node, $_, 'completed', "task $_ of one session") for @serial;
$list = join ',', @serial;
is(sql($node, qq{
	SELECT count(*) FROM boocoder.tasks a JOIN boocoder.tasks b ON a.id < b.id AND a.started_at < b.ended_at
		AND b.started_at < a.ended_at WHERE a.id IN ($list) AND b.id IN ($list)}), '0',
	'one task of a session at a time');
is(started_order(@serial), join(' ', @serial), 'in their order');

# ---- run_at ----

my $at = sql($node, "SELECT now() + interval '1500 ms'");
my $later = run_task($node, 'true', 'demo', agent => 'shell', run_at => $at);
settles($node, $later, 'completed', 'a task with run_at runs');
is(sql($node, "SELECT started_at >= run_at AND started_at < run_at + interval '1 s' FROM boocoder.tasks WHERE id = $later"),
	't', 'not before, and within a second after');

# ---- idempotency ----

my $first = run_task($node, 'true', 'demo', agent => 'shell', idempotency_key => 'once');
my $again = run_task($node, 'true', 'demo', agent => 'shell', idempotency_key => 'once');
is($again, $first, 'the same idempotency key is the same task');
wait_settled($node, $first);

# ---- time-outs ----

my $slow = run_task($node, 'echo started; while :; do sleep 1; done', 'demo', agent => 'shell', timeout => '1 s');
settles($node, $slow, 'failed', 'a task past its time-out fails');
is(task_row($node, $slow)->{failure_reason}, 'timeout', 'with reason timeout');
ok(none_left($node), 'its processes are gone');
like(text_of($node, $slow), qr/started/, 'what it said before is kept');

# ---- tasks that can't run ----

sub fails_with
{
	my ($task, $reason, $what) = @_;
	my $next = run_task($node, 'true', 'demo', agent => 'shell');
	settles($node, $task, 'failed', "$what: the task fails");
	my $row = task_row($node, $task);
	like($row->{failure_reason}, qr/^(?:$reason)$/, "$what: with its reason");
	ok(length($row->{error} // ''), "$what: and words for a person");
	settles($node, $next, 'completed', "$what: the next one runs");
}

fails_with(sql($node, "INSERT INTO boocoder.tasks (project_id, agent, input) VALUES ($project, 'nobody', 'x') RETURNING id"),
	'unknown_agent', 'an unknown agent');

sql($node, q{SELECT boocoder.register_provider('missing', 'command', ARRAY['no-such-program-here'])});
fails_with(run_task($node, 'x', 'demo', agent => 'missing'), 'program_not_found', 'a program that is not installed');

sql($node, "UPDATE boocoder.providers SET enabled = false WHERE name = 'missing'");
fails_with(run_task($node, 'x', 'demo', agent => 'missing'), 'agent_disabled', 'a disabled agent');

my $old = make_repo('allowed/old');
my $archived = add_project($node, 'old', $old);
my $waiting = run_task($node, 'x', 'old', agent => 'shell', run_at => \"now() + interval '300 ms'");
sql($node, "UPDATE boocoder.projects SET archived_at = now() WHERE id = $archived");
fails_with($waiting, 'project_archived', 'an archived project');

my $vanishing = make_repo('allowed/vanishing');
add_project($node, 'vanishing', $vanishing);
remove_tree($vanishing);
fails_with(run_task($node, 'x', 'vanishing', agent => 'shell'), 'repository_missing', 'a repository that vanished');

my $broken = make_repo('allowed/broken');
add_project($node, 'broken', $broken);
spew("$broken/.git/HEAD", "garbage\n");
fails_with(run_task($node, 'x', 'broken', agent => 'shell'), 'repository_\w+|git_error|base_not_found', 'a broken repository');

my $outside = make_repo('outside');
add_project($node, 'outside', $outside);
set("boocoder.allowed_roots = '$allowed'");
fails_with(run_task($node, 'x', 'outside', agent => 'shell'), '\w*outside\w*|path_not_allowed|repository_not_allowed',
	'a project outside the allowed roots');
like(sql_error($node, "SELECT boocoder.add_project('outside2', '$outside')"), qr/allowed/,
	'add_project refuses a path outside the allowed roots');
spew("$scratch/nogit/file", 'x');
like(sql_error($node, "SELECT boocoder.add_project('nogit', '$scratch/nogit')"), qr/ERROR/,
	'add_project refuses a directory that is no repository');

my $setup = make_repo('allowed/setup');
my $with_setup = add_project($node, 'setup', $setup);
sql($node, "UPDATE boocoder.projects SET setup = ARRAY['echo one > made-by-setup', 'exit 7'] WHERE id = $with_setup");
fails_with(run_task($node, 'x', 'setup', agent => 'shell'), 'setup_failed', 'a setup command that fails');
sql($node, "UPDATE boocoder.projects SET setup = ARRAY['echo ready > made-by-setup'] WHERE id = $with_setup");
my $prepared = run_task($node, 'cat made-by-setup', 'setup', agent => 'shell');
settles($node, $prepared, 'completed', 'a setup command that works');
like(text_of($node, $prepared), qr/ready/, 'its result is there for the agent');

my $empty = "$allowed/empty";
mkdir $empty;
git($empty, 'init', '-q');
my $error = sql_error($node, "SELECT boocoder.add_project('empty', '$empty')");
if ($error eq '')
{
	fails_with(run_task($node, 'x', 'empty', agent => 'shell'), 'repository_empty', 'a repository without a commit');
}
else
{
	like($error, qr/commit/, 'add_project refuses a repository without a commit');
}

is(sql($node, "SELECT count(*) FROM boocoder.tasks WHERE state IN ('running', 'pending')"), '0', 'nothing is left over');
ok(none_left($node), 'and no process');

# ---- the inbox names them ----

my @inbox = sql_rows($node, 'SELECT * FROM boocoder.inbox');
is(scalar(@inbox), sql($node, "SELECT count(*) FROM boocoder.tasks WHERE state = 'failed'"),
	'each failed task waits in the inbox');

$node->stop('fast');
done_testing();
