# SPDX-License-Identifier: PostgreSQL
#
# A project of another user of the operating system: its runners are started by a launch prefix, so repository,
# worktrees, homes and agents are that user's, and what belongs to the server is out of reach.
#
# BOOCODER_OTHER_USER names a user whom the one of the tests may act as by sudo without a password; test/run-tests.sh
# makes one when it is root.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use Test::More;
use Time::HiRes qw(sleep);

my $other = $ENV{BOOCODER_OTHER_USER} // '';
plan skip_all => 'needs BOOCODER_OTHER_USER, a user whom this one may act as by sudo'
  if $other eq '' || system("sudo -n -u '$other' true > /dev/null 2>&1") != 0;

# as_other(COMMAND): what a shell of that user says
sub as_other
{
	my ($command) = @_;
	open my $pipe, '-|', 'sudo', '-n', '-H', '-u', $other, 'sh', '-c', "cd; $command" or die "sudo: $!";
	local $/;
	my $out = <$pipe> // '';
	close $pipe;
	$out =~ s{\n\z}{};
	return $out;
}

my $home = (getpwnam $other)[7];
as_other("chmod 700 . && rm -rf repo .local && mkdir repo && cd repo && git init -q && echo hello > a.txt && git add . && git -c user.name=o -c user.email=o\@example.org commit -q -m one && chmod 700 .");
is(as_other('cat repo/a.txt'), 'hello', "a repository of $other");

my $node = new_node('other', conf => "boocoder.poll_interval = '300ms'");
ok(wait_dispatcher($node), 'the dispatcher is there');
like(sql_error($node, "SELECT boocoder.add_project('theirs', '$home/repo')"), qr/ERROR.*BC003/, 'the server cannot use it');
my $prefix = "ARRAY['sudo', '-n', '-u', '$other']";
ok(sql($node, "SELECT boocoder.add_project('theirs', '$home/repo', launch_prefix => $prefix)"), 'its user can');
is(sql($node, q{SELECT status FROM boocoder.doctor() WHERE "check" = 'project "theirs"'}), 'ok', 'doctor() looks as that user');
add_shell_agent($node, 'shell');
add_fake_acp($node, 'fake');

for my $sandbox (qw(on off))
{
	reconfigure($node, "SET boocoder.sandbox = '$sandbox'");
	sleep 0.3;
	my $data = $node->data_dir;
	my $task = run_task($node, "id -un; echo new > new-$sandbox.txt; echo \$HOME; cat $data/PG_VERSION 2> /dev/null; echo end", 'theirs', agent => 'shell');
	settles($node, $task, 'completed', "sandbox $sandbox: a task of theirs");
	my $text = text_of($node, $task);
	like($text, qr/^\Q$other\E\n/, "sandbox $sandbox: runs as them");
	like($text, qr{^\Q$home\E/.*\nend$}m, "sandbox $sandbox: in a home below theirs, without the data directory");
	my $path = sql($node, "SELECT w.path FROM boocoder.worktrees w JOIN boocoder.tasks t ON t.session_id = w.session_id WHERE t.id = $task");
	like($path, qr{^\Q$home\E/\.local/share/boocoder/}, "sandbox $sandbox: the worktree is below their home");
	is(as_other("stat -c '%U %a' '$path/new-$sandbox.txt'"), "$other 644", "sandbox $sandbox: what is in it is theirs");

	is(sql($node, "SELECT path FROM boocoder.pending_changes WHERE task_id = $task"), "new-$sandbox.txt", "sandbox $sandbox: the change waits");
	sql($node, "SELECT boocoder.apply($task)");
	ok(until_true(sub { sql($node, "SELECT status FROM boocoder.pending_changes WHERE task_id = $task") eq 'applied' }), "sandbox $sandbox: is applied");
	is(as_other("stat -c %U repo/new-$sandbox.txt; cat repo/new-$sandbox.txt"), "$other\nnew", "sandbox $sandbox: to their checkout, as them");

	my $long = run_task($node, 'text up; grandchild 300; sleep 300', 'theirs', agent => 'fake');
	ok(until_true(sub { said_so_far($node, $long) =~ /up/ }), "sandbox $sandbox: an agent under way");
	sql($node, "SELECT boocoder.cancel($long)");
	settles($node, $long, 'cancelled', "sandbox $sandbox: is cancelled", 15);
	ok(until_true(sub { as_other("pgrep -u $other -f '[f]ake-acp|[s]leep 300' || true") eq '' }, 5), "sandbox $sandbox: and leaves no process of theirs");

	# The server goes: so do its runners at the other end of sudo.
	my $running = run_task($node, 'text up; sleep 300', 'theirs', agent => 'fake', max_attempts => 1);
	ok(until_true(sub { said_so_far($node, $running) =~ /up/ }), "sandbox $sandbox: another one");
	sql($node, 'SELECT pg_terminate_backend(dispatcher_pid) FROM boocoder.status');
	ok(until_true(sub { as_other("pgrep -u $other -f '[f]ake-acp|[b]oocoder-runner' || true") eq '' }, 10), "sandbox $sandbox: ends with its dispatcher");
	settles($node, $running, 'failed', "sandbox $sandbox: and is accounted for");

	my $session = sql($node, "SELECT session_id FROM boocoder.tasks WHERE id = $task");
	sql($node, "SELECT boocoder.remove_worktree(w.id, force => true) FROM boocoder.worktrees w WHERE w.session_id = $session AND w.deleted_at IS NULL");
	ok(until_true(sub { as_other("test -e '$path' && echo there || true") eq '' }, 10), "sandbox $sandbox: the worktree is removed as them");
}

# A prefix that does not work is that task's failure.
sql($node, "UPDATE boocoder.projects SET launch_prefix = ARRAY['sudo', '-n', '-u', 'nobody-there'] WHERE name = 'theirs'");
my $task = run_task($node, 'true', 'theirs', agent => 'shell');
settles($node, $task, 'failed', 'a prefix that leads nowhere');
like(task_row($node, $task)->{failure_reason}, qr/runner_(?:crashed|start_failed)/, 'is a reason');
sql($node, "UPDATE boocoder.projects SET launch_prefix = ARRAY['/no/such/program'] WHERE name = 'theirs'");
$task = run_task($node, 'true', 'theirs', agent => 'shell');
settles($node, $task, 'failed', 'a program that is not there');
is(task_row($node, $task)->{failure_reason}, 'runner_start_failed', 'is one, too');
ok(until_true(sub { as_other("pgrep -u $other -f '[b]oocoder-runner' || true") eq '' }, 10), 'no process of theirs is left');
$node->stop('fast');
done_testing();
