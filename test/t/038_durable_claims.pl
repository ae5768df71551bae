# SPDX-License-Identifier: PostgreSQL
#
# A claim is seen before it is on disk, but no agent begins on one that a crash could take back.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use Test::More;

# nobody but who has to writes the log to disk
my $node = new_node('durable', conf => "wal_writer_delay = 10s\nautovacuum = off\nbgwriter_delay = 10s");
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

$node->stop;
done_testing();
