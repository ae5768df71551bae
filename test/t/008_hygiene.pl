# SPDX-License-Identifier: PostgreSQL
#
# No process of an agent outlives its task, however the task, the runner, the dispatcher or the server ends; and after
# any of these nothing stays "running" for ever, and committed work is neither lost nor repeated.
#
# The agent leaves the worst behind: a child in a session of its own, one that forked twice, one that emptied its
# environment; all of them deaf to signals.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use Test::More;

my $marker = "boocoder-hygiene-$$";
my $deaf = q{trap "" TERM INT HUP QUIT; while :; do sleep 0.2; done};
my $litter = join "\n",
	'trap "" TERM INT HUP',
	# a session of its own
	"setsid sh -c '$deaf' $marker-setsid &",
	# forked twice: its parent is gone
	"(setsid sh -c 'sh -c \"\$0\" $marker-twice &' '$deaf')",
	# without its environment, all descriptors closed
	"setsid env -i sh -c '$deaf' $marker-env </dev/null >/dev/null 2>&1 3>&- &",
	'echo up';
my $forever = "$litter\nwhile :; do sleep 0.2; done";

for my $sandbox (qw(on off))
{
	my $node = new_node("hygiene_$sandbox", conf => <<"CONF");
boocoder.sandbox = $sandbox
boocoder.cancel_grace = '300ms'
boocoder.term_grace = '200ms'
boocoder.max_running = 2
CONF
	my $repo = make_repo("hygiene-$sandbox");
	add_project($node, 'demo', $repo);
	add_shell_agent($node);

	# A task whose agent and its litter are really there.
	my $start = sub {
		my ($script, %option) = @_;
		my $task = run_task($node, $script, 'demo', agent => 'shell', %option);
		my $up = until_true(sub {
			my @all = agent_pids($node, $marker);
			3 == grep { my $kind = $_; grep { $_->{cmdline} =~ /\Q$marker\E-$kind\n?\z/ } @all } qw(setsid twice env) });
		ok($up, 'the agent and what it started are there') or do { explain_task($node, $task); report_processes(agent_pids($node, $marker)) };
		return $task;
	};
	my $clean = sub {
		my ($what) = @_;
		ok(none_left($node, $marker), "sandbox $sandbox, $what: no process is left after 2 s")
		  # what is left belongs to this test; the next case starts clean
		  or kill 'KILL', map { $_->{pid} } agent_pids($node, $marker);
	};
	ok(wait_dispatcher($node), "sandbox $sandbox: the dispatcher is there");

	# ---- ends of the task ----

	my $task = run_task($node, $litter, 'demo', agent => 'shell');
	settles($node, $task, 'completed', 'a task that leaves processes behind');
	$clean->('normal end');

	$task = $start->($forever);
	sql($node, "SELECT boocoder.cancel($task)");
	settles($node, $task, 'cancelled', 'cancelled', 10);
	$clean->('cancel');

	$task = run_task($node, $forever, 'demo', agent => 'shell', timeout => '1500 ms');
	settles($node, $task, 'failed', 'timed out', 15);
	is(task_row($node, $task)->{failure_reason}, 'timeout', 'with its reason');
	$clean->('time-out');

	# ---- kill -9 ----

	$task = $start->($forever);
	# The agent itself: the shell with the script as its argument, the deepest of those (bwrap has it too).
	my ($agent) = sort { $b->{pid} <=> $a->{pid} }
	  grep { $_->{cmdline} =~ m{\A/bin/sh\n-c\neval} } agent_pids($node, $marker);
	ok($agent, 'the agent process is found');
	kill 'KILL', $agent->{pid} if $agent;
	settles($node, $task, 'failed', 'kill -9 of the agent', 10);
	is(task_row($node, $task)->{failure_reason}, 'killed_by_signal', 'with its reason');
	$clean->('kill -9 of the agent');

	$task = $start->($forever);
	my $dispatcher = dispatcher_pid($node);
	my $serving = (sort { $a->{start} <=> $b->{start} } grep {
		my $runner = $_;
		grep { $_->{ppid} == $runner->{pid} } processes(sub { 1 })
	} runner_pids($dispatcher))[0];
	ok($serving, 'the runner of the task is found');
	kill 'KILL', $serving->{pid} if $serving;
	settles($node, $task, 'failed', 'kill -9 of the runner', 10);
	is(task_row($node, $task)->{failure_reason}, 'runner_crashed', 'with its reason');
	is(dispatcher_pid($node), $dispatcher, 'the dispatcher did not notice');
	$clean->('kill -9 of the runner');

	# From here on the attempt is interrupted; it has another one.
	my $interrupted = sub {
		my ($task, $what) = @_;
		ok(wait_dispatcher($node, 10), "$what: the dispatcher is back");
		ok(until_true(sub {
			my $row = task_row($node, $task);
			$row->{attempt} == 2 && $row->{state} eq 'running' }, 10), "$what: the task has its second attempt")
		  or explain_task($node, $task);
		sql($node, "SELECT boocoder.cancel($task)");
		settles($node, $task, 'cancelled', "$what: and obeys", 10);
		$clean->($what);
	};
	my $last_attempt = sub {
		my ($task, $what) = @_;
		settles($node, $task, 'failed', "$what: a task without attempts left fails", 10);
		is(task_row($node, $task)->{failure_reason}, 'interrupted', "$what: as interrupted");
	};

	$task = $start->($forever);
	$dispatcher = dispatcher_pid($node);
	my @runners = runner_pids($dispatcher);
	sql($node, "SELECT pg_terminate_backend($dispatcher)");
	ok(until_true(sub { my $p = dispatcher_pid($node); $p ne '' && $p ne $dispatcher }, 2),
		'pg_terminate_backend: the dispatcher is back in 2 s');
	ok(!grep({ same_process($_) } @runners), 'its runners are gone');
	$interrupted->($task, 'pg_terminate_backend of the dispatcher');

	$task = $start->($forever, max_attempts => 1);
	@runners = runner_pids(dispatcher_pid($node));
	kill 'KILL', dispatcher_pid($node);
	$clean->('kill -9 of the dispatcher');
	ok(until_true(sub { !grep { same_process($_) } @runners }, 2), 'nor a runner');
	# That makes the whole server restart: nothing but the processes is lost.
	ok(until_true(sub { $node->psql('postgres', 'SELECT 1') == 0 }), 'the server recovers');
	$last_attempt->($task, 'kill -9 of the dispatcher');

	# ---- the server stops ----

	for my $mode (qw(smart fast immediate))
	{
		$task = $start->($forever);
		@runners = runner_pids(dispatcher_pid($node));
		$node->stop($mode);
		$clean->("pg_ctl stop -m $mode");
		ok(until_true(sub { !grep { same_process($_) } @runners }, 2), "$mode: nor a runner");
		$node->start;
		$interrupted->($task, "pg_ctl stop -m $mode");
	}

	$task = $start->($forever);
	@runners = runner_pids(dispatcher_pid($node));
	my ($postmaster) = split /\n/, slurp($node->data_dir . '/postmaster.pid');
	$node->kill9;
	$clean->('kill -9 of the postmaster');
	ok(until_true(sub { !grep { same_process($_) } @runners }, 2), 'nor a runner');
	until_true(sub { !kill 0, $postmaster });
	ok($node->start(fail_ok => 1), 'the server starts again in the same directory');
	$interrupted->($task, 'kill -9 of the postmaster');

	# ---- what was committed once is not done twice ----

	$task = run_task($node, 'echo once >> count.txt', 'demo', agent => 'shell');
	settles($node, $task, 'completed', 'a task completes');
	$node->stop('immediate');
	$node->start;
	ok(wait_dispatcher($node), 'a crash after that');
	my $later = run_task($node, 'true', 'demo', agent => 'shell');
	settles($node, $later, 'completed', 'a later task runs');
	my $row = task_row($node, $task);
	is("$row->{state} $row->{attempt}", 'completed 1', 'the completed one is not run again');

	# ---- the extension goes, the database goes ----

	$task = $start->($forever);
	@runners = runner_pids(dispatcher_pid($node));
	sql($node, 'DROP EXTENSION boocoder CASCADE');
	$clean->('DROP EXTENSION');
	ok(until_true(sub { !grep { same_process($_) } @runners }, 2), 'nor a runner');
	sql($node, 'CREATE EXTENSION boocoder');

	sql($node, 'CREATE DATABASE doomed');
	sql($node, 'CREATE EXTENSION boocoder', 'doomed');
	add_project($node, 'demo', $repo, 'doomed');
	add_shell_agent($node, 'shell', 'doomed');
	$start->($forever, database => 'doomed');
	sql($node, 'DROP DATABASE doomed');
	$clean->('DROP DATABASE');

	is(sql($node, q{SELECT count(*) FROM boocoder.tasks WHERE state = 'running'}), '0', 'nothing stays running');
	$node->stop('fast');
}

done_testing();
