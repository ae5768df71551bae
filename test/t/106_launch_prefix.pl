# SPDX-License-Identifier: PostgreSQL
#
# A launch prefix that leads elsewhere, as ssh -T does (test/agents/far-prefix): runners are not below the dispatcher, have
# pipes, no terminal and the environment of that place. Work, permissions, secrets, probes; and nothing is left there,
# whatever ends the connection.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use IPC::Run ();
use Test::More;

my $socket = "$scratch/place";
my $node = new_node('prefix', conf => <<'CONF');
boocoder.cancel_grace = '300ms'
boocoder.term_grace = '200ms'
boocoder.git_timeout = '3s'
boocoder.handshake_timeout = '2s'
boocoder.probe_timeout = '3s'
boocoder.env_allow = 'BOOCODER_TEST_KEY'
CONF

# ---- that place ----

my ($far, $told, $runner);

sub far_begins
{
	unlink $socket;
	$told = '';
	$far = IPC::Run::start(
		[ 'env', '-i', 'PATH=/usr/local/bin:/usr/bin:/bin', 'FAR_PLACE=yes', 'FAR_KEY=the-key-of-that-place', 'LC_ALL=C.UTF-8',
			"$agents_dir/far-prefix", '--serve', $socket ], '<', \undef, '>', \$told, '2>', \my $errors);
	ok(until_true(sub { $far->pump_nb; $told =~ /ready/ }, 10), 'that place is there') or BAIL_OUT($errors);
}

# How many runners it was asked for
sub asked
{
	$far->pump_nb for 1 .. 5;
	return scalar(() = $told =~ /boocoder-runner/g);
}

# The runners of that place: nobody may read their environment, so they are told by where they are not.
sub there
{
	my $dispatcher = dispatcher_pid($node);
	return processes(sub { $_[0]{cmdline} =~ /\A\Q$runner\E\n/ && $_[0]{ppid} ne $dispatcher });
}

far_begins();
my $repo = make_repo('far', { 'hello.txt' => "hello\n", 'litter' => <<'SH' });
setsid sh -c 'trap "" TERM INT HUP; while :; do sleep 0.2; done' far-litter &
SH
my $prefix = 'ARRAY[' . literal("$agents_dir/far-prefix") . ', ' . literal($socket) . ']';
my $root = worktree_root($node) . '/far';
ok(wait_dispatcher($node), 'the dispatcher is there');
ok(sql($node, "SELECT boocoder.add_project('far', '$repo', launch_prefix => $prefix, worktree_root => '$root')"), 'a project of that place');
cmp_ok(asked(), '>', 0, 'which it was looked at from');
($runner) = $told =~ m{^(\S*/boocoder-runner)\b}m;
add_shell_agent($node, 'shell');
add_fake_acp($node, 'fake');

# An agent that has left something behind, and goes on
sub under_way
{
	my ($name, $agent) = @_;
	my $task = $agent eq 'fake' ? run_task($node, 'run sh litter;text up;silence', 'far', agent => 'fake', max_attempts => 1)
	  : run_task($node, 'sh litter; echo up; while :; do sleep 0.1; done', 'far', agent => 'shell', max_attempts => 1);
	ok(until_true(sub { said_so_far($node, $task) =~ /up/ && grep { $_->{cmdline} =~ /far-litter/ } agent_pids($node) }, 20), "$name: is under way")
	  or explain_task($node, $task);
	return $task;
}

sub nothing_there
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @left;
	my $gone = until_true(sub { @left = (there(), agent_pids($node)); @left == 0 }, 2);
	ok($gone, "$name: nothing is left there after 2 s") or report_processes(@left);
}

# The prefix itself, below the dispatcher, and the relay at the other end
sub near { return processes(sub { $_[0]{ppid} == dispatcher_pid($node) && $_[0]{cmdline} =~ /far-prefix/ }) }
sub relays { my $pid = $far->{KIDS}[0]{PID}; return processes(sub { $_[0]{ppid} == $pid }) }

for my $sandbox (qw(on off))
{
	$node->append_conf('postgresql.conf', "boocoder.sandbox = $sandbox");
	$node->restart;
	ok(wait_dispatcher($node), "sandbox $sandbox: the dispatcher is there");

	# ---- work ----

	my $before = asked();
	my $task = run_task($node, "echo new > $sandbox.txt; env; cat", 'far', agent => 'shell');
	settles($node, $task, 'completed', "sandbox $sandbox: a task");
	cmp_ok(asked() - $before, '>=', 3, 'every step of it had its runner there');
	unlike(said_so_far($node, $task), qr/FAR_|PGDATA|DISPLAY/, 'the agent has nothing of the environment of that place');
	is(sql($node, "SELECT path FROM boocoder.pending_changes WHERE task_id = $task"), "$sandbox.txt", 'its work is a change');
	sql($node, "SELECT boocoder.apply($task)");
	ok(until_true(sub { sql($node, "SELECT status FROM boocoder.pending_changes WHERE task_id = $task") eq 'applied' }), 'which is applied');
	is(slurp("$repo/$sandbox.txt"), "new\n", 'from there');

	# ---- it is elsewhere ----

	$task = under_way('an agent', 'fake');
	my ($its_runner) = there();
	ok($its_runner, 'its runner is there');
	is((split ' ', (slurp("/proc/$its_runner->{pid}/stat") =~ /^.*\)\s+(.*)$/s)[0])[4], 0, 'without a terminal');
	my %parent = map { $_->{pid} => $_->{ppid} } processes(sub { 1 });
	my ($above, @above) = ($its_runner->{pid});
	push @above, $above while $above = $parent{$above};
	ok(!grep({ $_ == dispatcher_pid($node) } @above), 'and not below the dispatcher');

	# ---- ends ----

	sql($node, "SELECT boocoder.cancel($task)");
	settles($node, $task, 'cancelled', 'a cancel', 10);
	nothing_there('a cancel');
	for my $case ([ 'the prefix is killed', \&near ], [ 'the connection breaks over there', \&relays ])
	{
		my ($name, $who) = @$case;
		$task = under_way($name, $name =~ /prefix/ ? 'shell' : 'fake');
		kill 'KILL', map { $_->{pid} } $who->();
		settles($node, $task, 'failed', $name, 15);
		is(task_row($node, $task)->{failure_reason}, 'runner_crashed', "$name: reason");
		nothing_there($name);
	}
	$task = under_way('the dispatcher ends', 'fake');
	sql($node, 'SELECT pg_terminate_backend(' . dispatcher_pid($node) . ')');
	nothing_there('the dispatcher ends');
	settles($node, $task, 'failed', 'the dispatcher ends: its task', 15);
	$task = under_way('the server is gone', 'shell');
	$node->stop('immediate');
	nothing_there('the server is gone');
	$node->start;
	ok(wait_dispatcher($node), 'the server is back');
	settles($node, $task, 'failed', 'the server is gone: its task', 15);
}
$node->append_conf('postgresql.conf', 'boocoder.sandbox = on');
$node->reload;

# ---- a person answers ----

my $task = run_task($node, 'ask;text after', 'far', agent => 'fake', permission_policy => 'ask');
ok(until_true(sub { task_state($node, $task) eq 'blocked' }), 'an agent there asks');
sql($node, "SELECT boocoder.answer_permission(id, 'allow') FROM boocoder.permission_requests WHERE task_id = $task");
settles($node, $task, 'completed', 'and is answered');
like(text_of($node, $task), qr/allow_once.*after/s, 'with what was said');

# ---- secrets are those of that place ----

sql($node, q(UPDATE boocoder.providers SET env = '{"KEY": {"from_env": "FAR_KEY"}}' WHERE name = 'shell'));
$task = run_task($node, '[ "$KEY" = the-key-of-that-place ] && echo known', 'far', agent => 'shell');
settles($node, $task, 'completed', 'a variable of that place');
is(text_of($node, $task), "known\n", 'is found there');
sql($node, q(UPDATE boocoder.providers SET env = '{"KEY": {"from_env": "BOOCODER_TEST_KEY"}}' WHERE name = 'shell'));
$task = run_task($node, 'true', 'far', agent => 'shell');
settles($node, $task, 'failed', 'one of the server');
is(task_row($node, $task)->{failure_reason}, 'secret_unavailable', 'is not');
sql($node, q(UPDATE boocoder.providers SET env = '{}' WHERE name = 'shell'));

# ---- a probe goes the same way ----

sub probe
{
	my ($agent) = @_;
	my $asked = sql($node, 'SELECT clock_timestamp()');
	sql($node, "SELECT boocoder.probe_agents('$agent')");
	until_true(sub { sql($node, "SELECT probed_at > '$asked' FROM boocoder.available_agents WHERE name = '$agent'") eq 't' }, 20);
	return sql_row($node, "SELECT * FROM boocoder.available_agents WHERE name = '$agent'") // {};
}

add_fake_acp($node, 'probed');
sql($node, "UPDATE boocoder.providers SET launch_prefix = $prefix, env = '{\"KEY\": {\"from_env\": \"FAR_KEY\"}}' WHERE name = 'probed'");
my $before = asked();
my $found = probe('probed');
is($found->{status}, 'ready', 'a probe through the prefix') or diag(json->encode($found));
is(asked() - $before, 1, 'has its runner there');
is(join(' ', map { $_->{id} } @{ $found->{models} // [] }), 'fake-1 fake-2', 'and tells what the agent offers');
nothing_there('a probe');

# ---- prefixes that do not lead anywhere ----

my %bad = (
	'that talks first' => [ 'ARRAY[\'/bin/sh\', \'-c\', \'echo Welcome to this host; exec "$0" "$@"\']', qr/^runner_crashed$/ ],
	'that ends at once' => [ q{ARRAY['/bin/true']}, qr/^runner_crashed$/ ],
	'that is not there' => [ q{ARRAY['/no/such/program']}, qr/^runner_start_failed$/ ],
	'that hangs' => [ "ARRAY['/bin/sh', '-c', 'exec sleep 600.$$']", qr/^runner_start_failed$/ ],
);
for my $name (sort keys %bad)
{
	my ($bad_prefix, $reason) = @{ $bad{$name} };
	sql($node, "UPDATE boocoder.providers SET launch_prefix = $bad_prefix WHERE name IN ('shell', 'probed')");
	my $began = now();
	$task = run_task($node, 'true', 'far', agent => 'shell');
	settles($node, $task, 'failed', "a prefix $name fails the task", 15);
	like(task_row($node, $task)->{failure_reason}, $reason, "$name: with a reason");
	$found = probe('probed');
	is($found->{status}, 'error', "$name: and the probe");
	cmp_ok(now() - $began, '<', 15, "$name: in time");
}
ok(until_true(sub { !processes(sub { $_[0]{cmdline} =~ /\Asleep\n600\.$$\n/ }) }, 2), 'those that hung are gone');
sql($node, "UPDATE boocoder.providers SET launch_prefix = '{}' WHERE name = 'shell'");
$far->kill_kill;
$task = run_task($node, 'true', 'far', agent => 'shell');
settles($node, $task, 'failed', 'a place that is gone fails the task', 15);
far_begins();
$task = run_task($node, 'true', 'far', agent => 'shell');
settles($node, $task, 'completed', 'and when it is back there is work again');
nothing_there('in the end');
$node->stop('fast');
$far->kill_kill;
done_testing();
