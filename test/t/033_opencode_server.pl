# SPDX-License-Identifier: PostgreSQL
#
# opencode over a server that many chats share, over SQL alone: a scripted server for the edges.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use File::Path qw(make_path);
use Test::More;
use Time::HiRes qw(sleep time);

# In the sandbox, /tmp is its own and the rest read-only: the scripted server keeps its state in its home.
my $node = new_node('oserver', conf => <<'CONF');
boocoder.poll_interval = '300ms'
boocoder.server_health_interval = '200ms'
boocoder.server_health_timeout = '400ms'
boocoder.server_health_failures = 3
boocoder.cancel_grace = '1s'
boocoder.max_running = 8
CONF
my $repo = make_repo('oserver');
add_project($node, 'demo', $repo);
ok(wait_dispatcher($node), 'the dispatcher is there');
sql($node, "SELECT boocoder.register_provider('served', 'opencode_server', ARRAY['/bin/sh', '-c', 'mkdir -p ~/state && FAKE_STATE=~/state exec \"\$0\" \"\$@\"', "
	  . literal("$agents_dir/fake-opencode") . ", 'serve'])");

sub say_to
{
	my ($chat, $input) = @_;
	return sql($node, 'INSERT INTO boocoder.tasks (project_id, session_id, chat_id, creator, input, agent)'
		  . " SELECT 1, session_id, id, 'chat', " . literal($input) . ", 'served' FROM boocoder.chats WHERE id = $chat RETURNING id");
}

sub turn
{
	my ($chat, $input, $name, $state) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $task = say_to($chat, $input);
	settles($node, $task, $state // 'completed', $name);
	return $task;
}

sub server { return sql_row($node, "SELECT * FROM boocoder.servers WHERE state <> 'ending'") }
# The program itself, of this server.
sub serving
{
	my $root = worktree_root($node);
	return processes(sub { $_[0]{cmdline} =~ /^\S*perl\n\S*fake-opencode\nserve/ && $_[0]{environ} =~ /^HOME=\Q$root\E/m });
}

sub session_of { return sql($node, "SELECT agent_session_id FROM boocoder.agent_sessions WHERE chat_id = $_[0]") }

# ---- one server, many chats ----

my $chat = new_chat($node);
my $task = turn($chat, 'text hello', 'a turn on a server');
is(text_of($node, $task), 'hello', 'says what it said');
my $first = server();
is($first->{state}, 'ready', 'the server is there');
my $id = session_of($chat);
$task = turn($chat, 'text again; usage 100 20 5 0.5', 'another turn');
is(session_of($chat), $id, 'goes on in the same session');
is(sql($node, "SELECT input_tokens || ' ' || output_tokens FROM boocoder.tasks WHERE id = $task"), '100 20', 'its tokens are charged');
my @chats = map { new_chat($node) } 1 .. 3;
my @tasks = map { say_to($_, "wait 500; text of $_") } @chats;
settles($node, $_, 'completed', 'chats side by side') for @tasks;
is(text_of($node, $tasks[$_]), "of $chats[$_]", 'each hears its own') for 0 .. 2;
is(sql($node, 'SELECT count(DISTINCT agent_session_id) FROM boocoder.agent_sessions'), 4, 'in sessions of their own');
is(sql($node, 'SELECT count(DISTINCT worktree_id) FROM boocoder.agent_sessions'), 4, 'and worktrees');
is(server()->{pid}, $first->{pid}, 'all on one server');
my @serving = serving();
is(scalar @serving, 1, 'there is one process of it');
my $password = ($serving[0]{environ} =~ /^OPENCODE_SERVER_PASSWORD=(\w+)$/m)[0];
ok(length($password // '') >= 40, 'it has a password');
is(sql($node, "SELECT count(*) FROM boocoder.servers s WHERE s::text LIKE '%$password%'"), 0, 'which is in no table');
is(sql($node, "SELECT count(*) FROM boocoder.events e WHERE e.payload::text LIKE '%$password%'"), 0, 'nor event');
unlike(slurp($node->logfile), qr/\Q$password\E/, 'nor log');
is(scalar(processes(sub { $_[0]{cmdline} =~ /\Q$password\E/ })), 0, 'nor command line');

# ---- cancel, errors ----

$task = say_to($chat, 'text begun; hang');
ok(until_true(sub { @{ [ events_of($node, $task, 'text') ] } }), 'a turn that hangs');
sql($node, "SELECT boocoder.cancel($task)");
settles($node, $task, 'cancelled', 'is cancelled');
is(server()->{pid}, $first->{pid}, 'the server lives on');
$task = turn($chat, 'error 429 slow down', 'a turn whose model is busy', 'failed');
is(sql($node, "SELECT failure_reason FROM boocoder.tasks WHERE id = $task"), 'rate_limited', 'has that reason');
turn($chat, 'text fine', 'the next turn');
is(session_of($chat), $id, 'is of the same session');

# ---- the server dies ----

kill 'KILL', $serving[0]{pid};
ok(until_true(sub { my $s = server(); $s && $s->{state} eq 'ready' && $s->{restarts} == 1 }, 10), 'a server that is killed is started again');
$task = turn($chat, 'text back', 'a turn on the new one');
is(text_of($node, $task), 'back', 'works');
isnt(session_of($chat), $id, 'in another session: a crashed one is not gone on with');
is(scalar(@{ [ events_of($node, $task, 'context_reset') ] }), 1, 'which is told');
$id = session_of($chat);
sql($node, "SELECT boocoder.wait($task)");
$task = sql($node, 'INSERT INTO boocoder.tasks (project_id, session_id, chat_id, creator, input, agent, mode)'
	  . " SELECT 1, session_id, id, 'chat', 'text other', 'served', 'plan' FROM boocoder.chats WHERE id = $chat RETURNING id");
settles($node, $task, 'completed', 'a turn in another mode');
isnt(session_of($chat), $id, 'is of another session, too');
$task = say_to($chat, 'text half; wait 1500; text done');
ok(until_true(sub { @{ [ events_of($node, $task, 'text') ] } }), 'a turn is under way');
my ($process) = serving();
sleep 11;    # one that did not live for 10 s would be given up
$task = say_to($chat, 'text half; wait 60000');
ok(until_true(sub { @{ [ events_of($node, $task, 'text') ] } }, 20), 'another one');
($process) = serving();
kill 'KILL', $process->{pid};
ok(wait_settled($node, $task, 30), 'killed under a turn: that ends');
isnt(task_state($node, $task), 'completed', 'not as a success');
turn($chat, 'text on', 'the next turn works');

# ---- it ends with its chats ----

sql($node, 'UPDATE boocoder.chats SET closed_at = now()');
$node->append_conf('postgresql.conf', "boocoder.idle_ttl = '500ms'");
$node->reload;
ok(until_true(sub { sql($node, 'SELECT count(*) FROM boocoder.servers') == 0 }, 15), 'a server that nobody needs ends');
ok(none_left($node, undef, 5), 'no process is left');

# ---- one that never gets ready ----

# what a server keeps in memory of a directory goes with a turn that nobody will go on with at once
my $alone = run_task($node, 'text alone', 'demo', agent => 'served');
settles($node, $alone, 'completed', 'a task without a chat');
my @forgotten = map { $_->{path} eq '/instance/dispose' ? $_->{query}{directory} : () } map { json->decode($_) }
  map { split /\n/, slurp($_) } glob(worktree_root($node) . '/*/homes/*-served/state/log');
is_deeply(\@forgotten, [ sql($node, "SELECT w.path FROM boocoder.worktrees w JOIN boocoder.tasks t USING (session_id) WHERE t.id = $alone") ],
	'the server is told to forget its directory, and that one only');

sql($node, "SELECT boocoder.register_provider('broken', 'opencode_server', ARRAY['/bin/sh', '-c', 'echo no >&2; exit 3'])");
my $other = new_chat($node);
$task = sql($node, 'INSERT INTO boocoder.tasks (project_id, session_id, chat_id, creator, input, agent)'
	  . " SELECT 1, session_id, id, 'chat', 'x', 'broken' FROM boocoder.chats WHERE id = $other RETURNING id");
settles($node, $task, 'failed', 'a server that does not start fails its turn');
like(sql($node, "SELECT failure_reason FROM boocoder.tasks WHERE id = $task"), qr/^agent_exited$/, 'with a reason');
ok(until_true(sub { sql($node, 'SELECT count(*) FROM boocoder.servers') == 0 }), 'and is not tried for ever');

$node->stop;
done_testing();
