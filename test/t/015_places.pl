# SPDX-License-Identifier: PostgreSQL
#
# What an agent is given besides its prompt: where it is, secrets that are nobody else's, a home, set-up and teardown.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep);

# ---- secrets: a string, a file, a variable of the server ----

my %canary = (string => 'canary-string-8d1f', file => 'canary-file-77aa', env => 'canary-env-c0de');
$ENV{BC_TEST_SECRET} = $canary{env};
$ENV{BC_TEST_OTHER} = 'canary-other-1234';
my $homes = "$scratch/agent-homes";
my $node = new_node('places', conf => <<"CONF");
boocoder.env_allow = 'BC_TEST_SECRET'
boocoder.agent_home = '$homes'
boocoder.port_first = 30000
boocoder.port_last = 30019
boocoder.poll_interval = '300ms'
CONF
my $repo = make_repo('places');
add_project($node, 'demo', $repo);
ok(wait_dispatcher($node), 'the dispatcher is there');
spew("$scratch/secret", "$canary{file}\n", 0600);

my $env = qq({"S": "$canary{string}", "F": {"from_file": "$scratch/secret"}, "E": {"from_env": "BC_TEST_SECRET"}});
add_shell_agent($node, 'shell');
add_fake_acp($node, 'fake');
sql($node, "UPDATE boocoder.providers SET env = '$env' WHERE name IN ('shell', 'fake')");

# Each of them compares what it has, and says only yes or no.
my $hash = sub { my $sum = 0; $sum = ($sum * 31 + ord) % 1000003 foreach split //, $_[0]; $sum };
my $sums = join ' ', map { $hash->($canary{$_}) } qw(string file env);
my $sum_program = q{perl -e 'for (@ENV{qw(S F E)}) { my $s = 0; $s = ($s * 31 + ord) % 1000003 foreach split //; print "$s " } print defined $ENV{BC_TEST_OTHER} || defined $ENV{BC_TEST_SECRET} ? "leak" : "clean"; sleep 1'};
my $task = run_task($node, $sum_program, 'demo', agent => 'shell');
my $lines = '';
until_true(sub {
	$lines .= join '', map { eval { slurp($_) } // '' } glob '/proc/[0-9]*/cmdline';
	task_state($node, $task) =~ /completed|failed/ });
settles($node, $task, 'completed', 'a command with secrets');
is(text_of($node, $task), "$sums clean", 'has them, and nothing else of the server');
# The canaries are in the SQL that this test sends, but in no other command line.
my @seen = grep { index($lines, $canary{$_}) >= 0 } sort keys %canary;
is("@seen", '', 'no command line shows one');

my $acp = run_task($node, 'env F; text said', 'demo', agent => 'fake');
settles($node, $acp, 'completed', 'an agent that speaks ACP');
like(text_of($node, $acp), qr/\Q$canary{file}\E/, 'has them, too, and may say so');
sql($node, "DELETE FROM boocoder.events WHERE task_id = $acp; DELETE FROM boocoder.message_parts WHERE task_id = $acp");
sql($node, "UPDATE boocoder.tasks SET output_summary = NULL WHERE id = $acp");

for my $case (
	[ 'a file that others can read', 0644, qr/can be read or written by others/ ],
	[ 'a file that is not there', undef, qr/No such file/ ])
{
	my ($name, $mode, $words) = @$case;
	defined $mode ? chmod $mode, "$scratch/secret" : unlink "$scratch/secret";
	$task = run_task($node, 'true', 'demo', agent => 'shell');
	settles($node, $task, 'failed', $name);
	my $row = task_row($node, $task);
	is($row->{failure_reason}, 'secret_unavailable', "$name: reason");
	like($row->{error}, $words, "$name: in words");
}
spew("$scratch/secret", $canary{file}, 0600);
sql($node, q(UPDATE boocoder.providers SET env = '{"E": {"from_env": "BC_TEST_OTHER"}}' WHERE name = 'shell'));
$task = run_task($node, 'true', 'demo', agent => 'shell');
settles($node, $task, 'failed', 'a variable that is not on the list');
is(task_row($node, $task)->{failure_reason}, 'secret_unavailable', 'is not to be had');
sql($node, "UPDATE boocoder.providers SET env = '{}' WHERE name = 'shell'");

# Nothing that people can read has one: all tables but the providers, and the server's log.
for my $table (split /\n/, sql($node, q{SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'boocoder'::regnamespace AND c.relkind = 'r' AND c.relname <> 'providers'}))
{
	my $rows = sql($node, "SELECT coalesce(string_agg(t::text, E'\\n'), '') FROM boocoder.$table t");
	my @in = grep { index($rows, $_) >= 0 } values %canary, 'canary-other-1234';
	is("@in", '', "no secret in $table");
}
my @in_log = grep { index(slurp($node->logfile), $_) >= 0 } @canary{qw(file env)}, 'canary-other-1234';
is("@in_log", '', 'nor in the log');
my $snapshot = sql($node, 'SELECT boocoder.provider_snapshot()');
unlike($snapshot, qr/canary/, 'nor in the snapshot');

# ---- where it is, and its ports ----

$task = run_task($node, 'echo "$BOOCODER_PROJECT $BOOCODER_SESSION_ID $BOOCODER_TASK_ID $BOOCODER_BRANCH $BOOCODER_PORT $BOOCODER_PORT_COUNT"; [ "$BOOCODER_WORKTREE" = "$PWD" ] && echo here', 'demo', agent => 'shell');
settles($node, $task, 'completed', 'an agent');
my $row = task_row($node, $task);
my $ports = sql($node, "SELECT port_first || ' ' || port_count FROM boocoder.worktrees WHERE session_id = $row->{session_id}");
SKIP:
{
	skip 'all ports are leased', 1 if $ports eq '';
	is(text_of($node, $task), "demo $row->{session_id} $task boocoder/$row->{session_id} $ports\nhere\n", 'knows where it is');
}
is(sql($node, 'SELECT count(*) FROM boocoder.worktrees WHERE deleted_at IS NULL AND port_first IS NOT NULL'), 2, 'ports are leased while there are some');

# ---- a home that lasts, but for what was allowed once and for all ----

sql($node, "UPDATE boocoder.providers SET persistent_home = true WHERE name = 'shell'");
my $write = 'echo login > $HOME/login; mkdir -p $HOME/.codex/rules; echo allow > $HOME/.codex/rules/default.rules; echo allow > $HOME/.config/goose/permission.yaml; cat $HOME/.codex/rules/*';
my $first = run_task($node, $write, 'demo', agent => 'shell');
settles($node, $first, 'completed', 'an agent with a lasting home') ;
is(text_of($node, $first), "allow\n", 'writes there');
is(slurp("$homes/shell/login"), "login\n", 'which is the one of its provider');
my $second = run_task($node, 'cat $HOME/login; cat $HOME/.codex/rules/* $HOME/.config/goose/permission.yaml 2> /dev/null; echo end', 'demo', agent => 'shell');
settles($node, $second, 'completed', 'another session');
is(text_of($node, $second), "login\nend\n", 'is logged in, and has been allowed nothing');
my $third = sql($node, "SELECT boocoder.send($first, 'cat \$HOME/.codex/rules/* \$HOME/.config/goose/permission.yaml')");
settles($node, $third, 'completed', 'the first session');
is(text_of($node, $third), "allow\nallow\n", 'still has what it was allowed');
sql($node, "UPDATE boocoder.providers SET persistent_home = false WHERE name = 'shell'");

# ---- ignored files of the checkout that a new worktree gets ----

spew("$repo/.gitignore", "*.env\ncache/\nsecret*\n.worktreeinclude\n");
git($repo, 'add', '.gitignore');
git($repo, 'commit', '-q', '-m', 'ignore');
spew("$repo/.worktreeinclude", "# a comment\nlocal.env\n/cache/\n");
spew("$repo/local.env", "KEY=1\n", 0640);
spew("$repo/deep/down/local.env", "KEY=2\n");
spew("$repo/other.env", "not listed\n");
spew("$repo/cache/a/b.bin", join('', map { chr } 0 .. 255) x 1000);
spew("$repo/untracked.txt", "known to nobody\n");
spew("$repo/secret1", "by the project\n");
symlink '/etc/passwd', "$repo/cache/link" or die $!;
POSIX::mkfifo("$repo/cache/fifo", 0600) or die $!;
sql($node, q{UPDATE boocoder.projects SET copy_files = '{secret*,untracked.txt,../outside}' WHERE name = 'demo'});
$task = run_task($node, 'find . -path ./.git -prune -o -type f -print -o -type l -print -o -type p -print | sort; stat -c %a local.env', 'demo', agent => 'shell');
settles($node, $task, 'completed', 'a new worktree');
is(text_of($node, $task), "./.gitignore\n./README\n./cache/a/b.bin\n./deep/down/local.env\n./hello.txt\n./local.env\n./secret1\n640\n",
	'has the ignored files that are listed, as they are, and no others');
my $copied = sql_row($node, "SELECT path FROM boocoder.worktrees w JOIN boocoder.tasks t ON t.session_id = w.session_id WHERE t.id = $task")->{path};
is(slurp("$copied/cache/a/b.bin"), slurp("$repo/cache/a/b.bin"), 'byte by byte');
is(sql($node, "SELECT count(*) FROM boocoder.pending_changes WHERE task_id = $task"), 0, 'they are no work of the agent');
sql($node, "UPDATE boocoder.projects SET copy_files = '{}' WHERE name = 'demo'");

# ---- setup and teardown ----

sql($node, q{UPDATE boocoder.projects SET setup = '{"echo made > ready"}', teardown = '{"cp ready \"$HOME/torn\"; echo $BOOCODER_PROJECT >> \"$HOME/torn\"", "exit 3"}' WHERE name = 'demo'});
$task = run_task($node, 'cat ready', 'demo', agent => 'shell');
settles($node, $task, 'completed', 'a task with a set-up');
is(text_of($node, $task), "made\n", 'which came first');
my $worktree = sql_row($node, "SELECT w.* FROM boocoder.worktrees w JOIN boocoder.tasks t ON t.session_id = w.session_id WHERE t.id = $task");
sql($node, "SELECT boocoder.remove_worktree($worktree->{id}, force => true)");
ok(until_true(sub { sql($node, "SELECT status FROM boocoder.worktrees WHERE id = $worktree->{id}") eq 'removed' }), 'the worktree goes, though its teardown failed');
my $job = sql_row($node, "SELECT * FROM boocoder.jobs WHERE worktree_id = $worktree->{id} AND kind = 'teardown'");
is($job->{state}, 'failed', 'which is on record');
like($job->{error}, qr/setup command 2 ended with status 3/, 'with the command to blame');
ok(!-e $worktree->{path}, 'and nothing is left');
ok(none_left($node), 'no process either');
$node->stop('fast');
done_testing();
