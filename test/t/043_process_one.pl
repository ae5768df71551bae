# SPDX-License-Identifier: PostgreSQL
#
# A server that is process 1, as in a container without an init: it becomes the parent of whatever a dead process leaves,
# and takes a stranger that is killed for a backend that crashed. Nothing that ends here may make it restart.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use IPC::Run ();
use Test::More;

my @unshare = ('unshare', '--user', '--map-current-user', '--pid', '--fork', '--mount-proc', '--kill-child=INT');
plan skip_all => 'no namespaces for processes here' unless IPC::Run::run([ @unshare, 'true' ], '>', \my $out, '2>', \my $err);

my $node = new_node('one', start => 0);
my $server = IPC::Run::start([ @unshare, 'postgres', '-D', $node->data_dir ], '>', $node->logfile, '2>&1');
ok(until_true(sub { $node->psql('postgres', 'SELECT 1') == 0 }, 20), 'the server is process 1');
is(sql($node, q{SELECT split_part(pg_read_file('postmaster.pid'), E'\n', 1)}), '1', 'it says so itself');
sql($node, 'CREATE EXTENSION boocoder');
add_project($node, 'demo', make_repo('one'));
add_shell_agent($node, 'shell');
add_fake_acp($node, 'fake');
ok(wait_dispatcher($node), 'the dispatcher is there');

my $started = sql($node, 'SELECT pg_postmaster_start_time()');
sub crashes { return scalar(() = slurp($node->logfile) =~ /terminating any other active server processes/g) }

# A dispatcher that ends while agents are at work, one of them a grandchild in a session of its own.
for my $round (1 .. 4)
{
	my @tasks = map { run_task($node, $_, 'demo', agent => 'shell', max_attempts => 1) } 'echo begun; sleep 60', 'echo begun; setsid sleep 60 & sleep 60';
	ok(until_true(sub { @tasks == grep { said_so_far($node, $_) =~ /begun/ } @tasks }, 20), "$round: agents are at work");
	my $pid = dispatcher_pid($node);
	sql($node, "SELECT pg_terminate_backend($pid)");
	ok(until_true(sub { my $now = dispatcher_pid($node); $now ne '' && $now ne $pid }, 10), "$round: another dispatcher comes");
	ok(none_left($node), "$round: no agent is left");
}
is(crashes(), 0, 'the server takes none of them for a backend that crashed') or diag(slurp($node->logfile));

# A runner that is killed, as by the system when memory is short.
my $task = run_task($node, 'echo begun; sleep 60', 'demo', agent => 'shell', max_attempts => 1);
ok(until_true(sub { said_so_far($node, $task) =~ /begun/ }, 20), 'an agent is at work');
my ($agent) = grep { $_->{cmdline} =~ /^sleep\n/ } agent_pids($node);
my %by_pid = map { $_->{pid} => $_ } processes(sub { 1 });
my $runner = $by_pid{ $agent->{ppid} };
$runner = $by_pid{ $runner->{ppid} } while $runner && ($runner->{cmdline} !~ /boocoder-runner/ || $by_pid{ $runner->{ppid} }{cmdline} =~ /boocoder-runner/);
ok($runner, 'its runner is found');
kill 'KILL', $runner->{pid} if $runner;
settles($node, $task, 'failed', 'its task fails', 20);
is(task_row($node, $task)->{failure_reason}, 'runner_crashed', 'for that');
ok(none_left($node), 'no agent is left');

sql($node, 'DROP EXTENSION boocoder CASCADE');
ok(until_true(sub { dispatcher_pid($node) eq '' }), 'DROP EXTENSION ends the dispatcher');
is(crashes(), 0, 'and nothing of that is a crash') or diag(slurp($node->logfile));
is(sql($node, 'SELECT pg_postmaster_start_time()'), $started, 'the server is the one that was started');

my ($postmaster) = processes(sub { $_[0]{cmdline} =~ /^postgres\n-D\n\Q@{[ $node->data_dir ]}\E\n/ && ($by_pid{ $_[0]{ppid} } // {cmdline => ''})->{cmdline} =~ /unshare\n/ });
kill 'INT', $postmaster->{pid} if $postmaster;
eval { IPC::Run::finish($server) };
done_testing();
