# SPDX-License-Identifier: PostgreSQL
#
# A claim is seen before it is on disk, but no agent begins on one that a crash could take back, nor one that a synchronous
# standby does not have. What agents report waits for neither.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use Test::More;

# nobody but who has to writes the log to disk
my $node = new_node('durable', init => { allows_streaming => 1 }, conf => "wal_writer_delay = 10s\nautovacuum = off\nbgwriter_delay = 10s");
my $repo = make_repo('durable', { 'a.txt' => "one\n" });
add_project($node, 'demo', $repo);
ok(wait_dispatcher($node), 'the dispatcher is there');
add_shell_agent($node, 'shell');

my $first = run_task($node, 'true', 'demo', agent => 'shell');
settles($node, $first, 'completed', 'a task makes the worktree');
my $session = sql($node, "SELECT session_id FROM boocoder.tasks WHERE id = $first");

for my $where ([ 'a worktree that is there', session => $session ], ['a new worktree'])
{
	my ($what, @option) = @$where;
	# no retries: one that begins again would be seen
	my $task = run_task($node, 'echo begun >> begun.txt; sleep 60', 'demo', agent => 'shell', max_attempts => 1, @option);
	my $place = worktree_root($node) . '/*/worktrees/*/s*/begun.txt';
	ok(until_true(sub { my @begun = glob $place; @begun }, 20), "$what: the agent begins");
	my ($postmaster) = split /\n/, slurp($node->data_dir . '/postmaster.pid');
	$node->kill9;
	ok(none_left($node, undef, 5), "$what: the server is killed at once, the agent goes with it");
	until_true(sub { !kill 0, $postmaster });
	ok($node->start(fail_ok => 1), "$what: the server starts again");
	ok(wait_dispatcher($node, 10), "$what: and its dispatcher");
	settles($node, $task, 'failed', "$what: the attempt is known to have begun", 10);
	is(task_row($node, $task)->{failure_reason}, 'interrupted', "$what: and is not made again");
	my ($begun) = glob $place;
	is(slurp($begun), "begun\n", "$what: the agent has begun once");
	unlink $begun;
}

# A synchronous standby that is not there: what commits before does not wait for it, what is begun does.
my $talking = run_task($node, 'for i in 1 2 3 4 5 6 7 8 9; do echo word$i; sleep 0.5; done', 'demo', agent => 'shell');
ok(until_true(sub { said_so_far($node, $talking) =~ /word1/ }), 'an agent is at work');
reconfigure($node, "SET synchronous_standby_names = 'nobody'");
ok(until_true(sub { said_so_far($node, $talking) =~ /word6/ }), 'what it says is seen without the standby');
my $waiting = sql($node, "SET synchronous_commit = local; SELECT boocoder.run('echo begun > begun.txt', 'demo', agent => 'shell')");
ok(until_true(sub { task_state($node, $waiting) eq 'running' }), 'a task is claimed') or explain_task($node, $waiting);
sleep 1;
is(sql($node, "SELECT count(*) FROM boocoder.events WHERE task_id = $waiting"), 0, 'but not begun');
reconfigure($node, "RESET synchronous_standby_names");
settles($node, $_, 'completed', 'without one to wait for, both end', 20) for $talking, $waiting;

# What writes nothing does not wait at all.
my $sleeping = run_task($node, 'echo asleep; sleep 60', 'demo', agent => 'shell');
ok(until_true(sub { said_so_far($node, $sleeping) =~ /asleep/ }), 'an agent is at work');
reconfigure($node, "SET synchronous_standby_names = 'nobody'");
sleep 1;
sql($node, "SET synchronous_commit = local; SELECT boocoder.cancel($sleeping)");
ok(none_left($node, undef, 5), 'a cancel reaches the agent without the standby');
reconfigure($node, "RESET synchronous_standby_names");
settles($node, $sleeping, 'cancelled', 'and is stored with one that is not waited for', 20);

$node->stop;
done_testing();
