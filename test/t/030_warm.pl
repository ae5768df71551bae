# SPDX-License-Identifier: PostgreSQL
#
# Agents that are kept between turns: one process, one connection, one session for each (chat, agent), over SQL alone.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = new_node('warm', conf => "boocoder.poll_interval = '500ms'\nboocoder.cancel_grace = '1s'\nboocoder.term_grace = '300ms'");
my $repo = make_repo('warm');
add_project($node, 'demo', $repo);
ok(wait_dispatcher($node), 'the dispatcher is there');
add_fake_acp($node, 'fake', '--resume');
add_fake_acp($node, 'loads', '--load');
add_fake_acp($node, 'plain');
add_fake_acp($node, 'forgets', '--resume', '--load', '--forget');
add_fake_acp($node, 'config', '--config');

sub say_to
{
	my ($chat, $input, %more) = @_;
	my ($columns, $values) = ('', '');
	$more{agent} //= 'fake';
	for my $name (sort keys %more)
	{
		$columns .= ", $name";
		$values .= ', ' . literal($more{$name});
	}
	return sql($node, "INSERT INTO boocoder.tasks (project_id, session_id, chat_id, creator, input$columns)"
		  . " SELECT 1, session_id, id, 'chat', " . literal($input) . "$values FROM boocoder.chats WHERE id = $chat RETURNING id");
}

sub backend { return sql_row($node, "SELECT * FROM boocoder.backends WHERE chat_id = $_[0] AND agent = '" . ($_[1] // 'fake') . "'") }
sub agent_session { return sql_row($node, "SELECT * FROM boocoder.agent_sessions WHERE chat_id = $_[0] AND agent = '" . ($_[1] // 'fake') . "'") }
sub backends { return sql($node, 'SELECT count(*) FROM boocoder.backends') }

# The processes of one task's worktree that are the agent itself.
sub agents { return grep { $_->{cmdline} =~ m{^\S*perl\n\S*/fake-acp}} agent_pids($node) }

# turn(CHAT, INPUT, NAME, MORE...): a turn that completes; what the agent said.
sub turn
{
	my ($chat, $input, $name, %more) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $task = say_to($chat, $input, %more);
	settles($node, $task, 'completed', $name);
	return text_of($node, $task);
}

# ---- three turns, one process ----

my $chat = new_chat($node);
like(turn($chat, 'turns; session; write a.txt one', 'the first turn'), qr/turns=1/, 'is the first of a process');
my $first = backend($chat);
is($first->{state}, 'idle', 'which waits');
ok($first->{pid} && alive($first->{pid}), 'with a runner');
my $session = agent_session($chat)->{agent_session_id};
like(turn($chat, 'turns; session; said', 'the second turn'), qr/turns=2\nsession=\Q$session\E\nsaid=\|turns/, 'goes on in the same session');
like(turn($chat, 'turns; write b.txt two', 'the third turn'), qr/turns=3/, 'and so does a third');
my $now = backend($chat);
is("$now->{id} $now->{pid} $now->{turns}", "$first->{id} $first->{pid} 3", 'by the same runner');
is(sql($node, "SELECT count(*) FROM boocoder.events WHERE kind = 'status' AND payload ->> 'phase' = 'spawned'"), 1, 'one agent was spawned');
is(sql($node, "SELECT count(*) FROM boocoder.events WHERE kind = 'status' AND payload ->> 'phase' = 'initialized'"), 1, 'initialized once');
is(sql($node, "SELECT count(*) FROM boocoder.events WHERE kind = 'status' AND payload ->> 'phase' = 'prompted'"), 3, 'and prompted three times');
is(sql($node, "SELECT string_agg(path, ' ' ORDER BY path) FROM boocoder.pending_changes WHERE status = 'pending'"), 'a.txt b.txt', 'the changes of all turns wait');
is(sql($node, "SELECT string_agg(DISTINCT seq::text, ',') FROM boocoder.message_parts p JOIN boocoder.messages m ON m.id = p.message_id"
	  . " WHERE m.role = 'assistant' AND seq = 1"), '1', 'the parts of each turn are counted from one');
is(agent_session($chat)->{status}, 'idle', 'the chat knows that its agent waits');
is(sql($node, 'SELECT warm_backends FROM boocoder.status'), 1, 'the status counts it');
is(sql($node, 'SELECT bool_and(warm) FROM boocoder.tasks'), 't', 'and the tasks that they were of a kept agent');

# ---- those who ask once ----

for my $creator (qw(arena mcp new_task))
{
	my $other = new_chat($node);
	my $task = sql($node, "INSERT INTO boocoder.tasks (project_id, session_id, chat_id, creator, input, agent)"
		  . " SELECT 1, session_id, id, '$creator', 'text x', 'fake' FROM boocoder.chats WHERE id = $other RETURNING id");
	settles($node, $task, 'completed', "a task of $creator");
	is(sql($node, "SELECT count(*) FROM boocoder.backends WHERE chat_id = $other"), 0, 'keeps no agent');
}
my $task = run_task($node, 'text once', 'demo', agent => 'fake');
settles($node, $task, 'completed', 'a task by itself');
is(backends(), 1, 'keeps none either');

# ---- cancel ends the turn, not the agent ----

$task = say_to($chat, 'text begun; sleep 30; text never');
ok(until_true(sub { text_of($node, $task) ne '' || @{ [ events_of($node, $task, 'text') ] } }), 'a long turn is under way');
is(backend($chat)->{state}, 'busy', 'its backend is busy');
sql($node, "SELECT boocoder.cancel($task)");
settles($node, $task, 'cancelled', 'it is cancelled');
like(turn($chat, 'turns', 'the next turn'), qr/turns=5/, 'is of the same process');
is(backend($chat)->{pid}, $first->{pid}, 'and runner');

$task = say_to($chat, 'on-cancel ignore; text begun; sleep 30');
ok(until_true(sub { @{ [ events_of($node, $task, 'text') ] } }), 'a turn that ignores a cancel');
sql($node, "SELECT boocoder.cancel($task)");
settles($node, $task, 'cancelled', 'is cancelled all the same');
like(turn($chat, 'turns; said; session', 'the turn after it'), qr/turns=1\nsaid=earlier\nsession=\Q$session\E/, 'is of a new process in the same session');

# ---- what comes late is of no turn ----

turn($chat, 'tool-start slow Slow; late words that come late; late-tool slow; late-ask', 'a turn with an epilogue');
sleep 0.3;
my $said = turn($chat, 'said; text only this', 'and the one behind it');
unlike($said, qr/late words/, 'late words are not said in it');
like($said, qr/late \{"outcome":\{"outcome":"cancelled"\}\}/, 'a late request was answered as cancelled');
is(sql($node, "SELECT count(*) FROM boocoder.message_parts p JOIN boocoder.messages m ON m.id = p.message_id"
	  . " WHERE m.role = 'assistant' AND (p.payload::text LIKE '%late words%' OR p.payload::text LIKE '%too late%')"), 0, 'and nothing of it is kept');
is(sql($node, 'SELECT count(*) FROM boocoder.permission_requests'), 0, 'nobody was asked');

# ---- a person is asked in every turn ----

my $asking = new_chat($node);
for my $round (1, 2)
{
	$task = sql($node, "INSERT INTO boocoder.tasks (project_id, session_id, chat_id, creator, input, agent, permission_policy)"
		  . " SELECT 1, session_id, id, 'chat', 'ask; turns', 'fake', 'ask' FROM boocoder.chats WHERE id = $asking RETURNING id");
	ok(wait_task($node, $task, 'blocked'), "turn $round asks a person");
	is(backend($asking)->{state}, 'busy', 'and its backend is not ended meanwhile');
	sql($node, "SELECT boocoder.answer_permission(id, 'opt-1-allow_once') FROM boocoder.permission_requests WHERE task_id = $task");
	settles($node, $task, 'completed', 'the answer reaches it');
	like(text_of($node, $task), qr/allow_once.*turns=$round/s, 'and only it');
}

# ---- model and mode are changed within the session ----

my $modal = new_chat($node);
turn($modal, 'text x', 'an agent with options', agent => 'config', model => 'fake-2', mode => 'auto');
turn($modal, 'text x', 'asked for the same', agent => 'config', model => 'fake-2', mode => 'auto');
turn($modal, 'text x', 'asked for others', agent => 'config', model => 'fake-1', mode => 'ask');
my $options = agent_session($modal, 'config');
is("$options->{model} $options->{mode} $options->{status}", 'fake-1 ask idle', 'has them');
is(backend($modal, 'config')->{turns}, 3, 'and is the same');

# ---- death between two turns, and within one ----

my ($victim) = grep { $_->{environ} =~ m{^BOOCODER_WORKTREE=.*/s$first->{session_id}$}m } agents();
ok($victim, 'the agent is there');
kill 'KILL', $victim->{pid};
ok(until_true(sub { agent_session($chat)->{status} eq 'crashed' }), 'killed between two turns: crashed');
is(sql($node, "SELECT count(*) FROM boocoder.backends WHERE chat_id = $chat"), 0, 'its backend is gone');
like(turn($chat, 'turns; said; session', 'the next turn'), qr/turns=1\nsaid=earlier\nsession=\Q$session\E/, 'starts it again in the same session');
is(agent_session($chat)->{status}, 'idle', 'and it waits again');

$task = say_to($chat, 'text partial; die KILL');
settles($node, $task, 'failed', 'killed within a turn: that fails');
like(sql($node, "SELECT failure_reason FROM boocoder.tasks WHERE id = $task"), qr/^agent_exited$/, 'with the reason');
is(text_of($node, $task), 'partial', 'what was said is kept');
is(agent_session($chat)->{status}, 'crashed', 'crashed');
like(turn($chat, 'turns; said', 'the next turn'), qr/turns=1\nsaid=earlier/, 'recovers the session');

my $runner = backend($chat)->{pid};
kill 'KILL', $runner;
ok(until_true(sub { agent_session($chat)->{status} eq 'crashed' }), 'the runner killed: crashed');
like(turn($chat, 'turns; said', 'the next turn'), qr/turns=1\nsaid=earlier/, 'recovers as well');

# A turn that finds its agent dead at the very moment
for my $round (1 .. 5)
{
	my $pid = backend($chat)->{pid};
	kill 'KILL', $pid;
	like(turn($chat, 'turns', "a turn at the moment of death, $round"), qr/turns=1/, 'finds a new one');
}

# ---- the ways to go on: resume, load, neither ----

for my $case ([ 'loads', 'earlier', 0, 'loads the session' ], [ 'plain', '', 1, 'has to begin anew' ], [ 'forgets', '', 1, 'begins anew when the session is gone' ])
{
	my ($agent, $memory, $resets, $name) = @$case;
	my $other = new_chat($node);
	turn($other, 'text x', "$agent: a first turn", agent => $agent);
	kill 'KILL', backend($other, $agent)->{pid};
	ok(until_true(sub { agent_session($other, $agent)->{status} eq 'crashed' }), 'is killed');
	my $next = say_to($other, 'said', agent => $agent);
	settles($node, $next, 'completed', "$agent $name");
	is(text_of($node, $next), "said=$memory\n", 'with what it remembers, and no more');
	is(scalar(@{ [ events_of($node, $next, 'context_reset') ] }), $resets, "$resets context_reset");
	is(sql($node, "SELECT count(*) FROM boocoder.message_parts WHERE task_id = $next AND (kind = 'tool_call' OR payload::text LIKE '%earlier answer%')"),
		0, 'what was told again is not kept twice');
}

# ---- another configuration is another process ----

my $before = backend($chat);
sql($node, "UPDATE boocoder.providers SET env = '{\"NEW\": \"1\"}' WHERE name = 'fake'");
like(turn($chat, 'turns; env NEW; said', 'the provider was changed'), qr/turns=1\nNEW=1\nsaid=earlier/, 'so the agent is started anew, and goes on');
isnt(backend($chat)->{id}, $before->{id}, 'as another backend');
ok(until_true(sub { !alive($before->{pid}) }, 5), 'the earlier one has ended');

# ---- two chats, two agents, one session ----

my $second = new_chat($node, $first->{session_id});
turn($second, 'write c.txt three', 'another chat of the session');
turn($chat, 'text x', 'another agent of the first chat', agent => 'plain');
is(sql($node, "SELECT count(*) FROM boocoder.backends WHERE session_id = $first->{session_id} AND state = 'idle'"), 3, 'three agents wait');
is(sql($node, "SELECT count(DISTINCT agent_session_id) FROM boocoder.agent_sessions WHERE session_id = $first->{session_id} AND status = 'idle'"), 3, 'with a session each');
is(sql($node, "SELECT count(DISTINCT worktree_id) FROM boocoder.backends WHERE session_id = $first->{session_id}"), 1, 'in one worktree');

# ---- eviction ----

$node->append_conf('postgresql.conf', 'boocoder.max_warm_backends = 2');
$node->reload;
ok(until_true(sub { backends() == 2 }), 'over the cap the least recently used end');
is(sql($node, "SELECT string_agg(chat_id || agent, ' ' ORDER BY id) FROM boocoder.backends"), "${second}fake ${chat}plain", 'the others stay');
is(agent_session($chat)->{status}, 'evicted', 'and it is written down');
my $long = new_chat($node);
my @busy = map { say_to($_, 'text at work; sleep 3') } $long, new_chat($node), new_chat($node);
ok(until_true(sub { sql($node, "SELECT count(*) FROM boocoder.backends WHERE state = 'busy'") == 3 }), 'three at work are over the cap');
ok(until_true(sub { backends() == 3 }), 'those that waited make room');
settles($node, $_, 'completed', 'one at work is never ended') for @busy;
ok(until_true(sub { backends() == 2 }), 'afterwards two wait');

$node->append_conf('postgresql.conf', "boocoder.idle_ttl = '600ms'");
$node->reload;
ok(until_true(sub { backends() == 0 }, 10), 'what waits for too long ends');
ok(none_left($node), 'with its processes');
like(turn($chat, 'said', 'a turn after it'), qr/said=earlier/, 'goes on');
ok(until_true(sub { backends() == 0 }, 10), 'and ends again');

$node->append_conf('postgresql.conf', "boocoder.idle_ttl = '30min'\nboocoder.max_warm_backends = 8");
$node->reload;
ok(until_true(sub { sql($node, "SHOW boocoder.idle_ttl") eq '30min' }), 'settings are back');

# ---- chats and sessions that end ----

my @chats = map { new_chat($node) } 1 .. 2;
turn($_, 'text x', 'a chat with an agent') for @chats;
is(backends(), 2, 'two wait');
sql($node, "UPDATE boocoder.chats SET closed_at = now() WHERE id = $chats[0]");
ok(until_true(sub { backends() == 1 }), 'a closed chat ends its agent');
sql($node, "UPDATE boocoder.sessions SET closed_at = now() WHERE id = (SELECT session_id FROM boocoder.chats WHERE id = $chats[1])");
ok(until_true(sub { backends() == 0 }), 'and so does a closed session');
ok(none_left($node), 'no process is left');

# ---- the dispatcher ends ----

turn($chat, 'text x', 'an agent waits');
my $waiting = backend($chat);
kill 'KILL', dispatcher_pid($node);
ok(none_left($node, undef, 5), 'its dispatcher killed: no process is left');
ok(until_true(sub { eval { sql($node, 'SELECT 1') } && wait_dispatcher($node, 1) }, 30), 'a new one comes');
ok(until_true(sub { agent_session($chat)->{status} eq 'crashed' }), 'for which it has crashed');
is(backends(), 0, 'there are no backends');
like(turn($chat, 'turns; said', 'the next turn'), qr/turns=1\nsaid=earlier/, 'goes on');

# ---- a runner that could not notice ----

turn($chat, 'text x', 'an agent waits once more');
my $stopped = backend($chat)->{pid};
kill 'STOP', $stopped;
kill 'TERM', dispatcher_pid($node);
ok(until_true(sub { agent_session($chat)->{status} eq 'crashed' }, 10), 'its runner is stopped and the dispatcher gone: the next one');
ok(!alive($stopped), 'ends it first');
ok(none_left($node), 'with its agent');
like(slurp($node->logfile), qr/ended process $stopped, a runner that an earlier dispatcher/, 'and says so');

$node->restart;
ok(wait_dispatcher($node), 'after a restart');
like(turn($chat, 'turns; said', 'too'), qr/turns=1\nsaid=earlier/, 'it goes on');
$node->safe_psql('postgres', 'DROP EXTENSION boocoder');
ok(none_left($node), 'DROP EXTENSION leaves none');

$node->stop;
done_testing();
