# SPDX-License-Identifier: PostgreSQL
#
# An agent asks, a person or a rule answers, over SQL alone.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = new_node('permissions', conf => "boocoder.max_running = 1\nboocoder.max_warm_backends = 0\nboocoder.poll_interval = '10s'");
my $repo = make_repo('permissions');
add_project($node, 'demo', $repo);
ok(wait_dispatcher($node), 'the dispatcher is there');
add_fake_acp($node, 'fake');
add_fake_acp($node, 'config', '--config');
add_shell_agent($node, 'shell');
sql($node, "UPDATE boocoder.providers SET permission_policy = 'ask' WHERE name IN ('fake', 'config')");

sub requests
{
	my ($task) = @_;
	return sql_rows($node, "SELECT * FROM boocoder.permission_requests WHERE task_id = $task ORDER BY id");
}

sub asked
{
	my ($task, $n) = @_;
	return until_true(sub { sql($node, "SELECT count(*) FROM boocoder.permission_requests WHERE task_id = $task") == $n });
}

# ---- one request: blocked, told to listeners, in the inbox, answered ----

my $listener = session_open($node);
$listener->query_safe('LISTEN boocoder_events');
my $task = run_task($node, 'ask; text after', 'demo', agent => 'fake');
ok(asked($task, 1), 'a request is a row') or explain_task($node, $task);
ok(until_true(sub { task_state($node, $task) eq 'blocked' }), 'and its task blocked');
my $inbox = sql_row($node, "SELECT * FROM boocoder.inbox WHERE task_id = $task");
is($inbox->{reason}, 'permission', 'it waits in the inbox');
like($inbox->{what_to_do}, qr/answer_permission\(\d+, \.\.\.\).*'opt-1-allow_once'/, 'with what to call');
like(scalar($listener->query("SELECT 'done'")), qr/boocoder_events.*"tasks": \[$task\]/s, 'and listeners are told');
session_close($listener);

# A blocked task holds its session, but no slot: max_running is 1.
my $other = run_task($node, 'echo other', 'demo', agent => 'shell');
settles($node, $other, 'completed', 'another task runs meanwhile');
my $follower = sql($node, "SELECT boocoder.send($task, 'text follower')");
sleep 0.5;
is(task_state($node, $follower), 'pending', 'one of the same session waits');

my ($request) = requests($task);
my $before = time;
sql($node, "SELECT boocoder.answer_permission($request->{id}, 'opt-1-allow_once')");
settles($node, $task, 'completed', 'the answer lets it go on');
cmp_ok(time - $before, '<', 2, 'at once');
like(text_of($node, $task), qr/"optionId":"opt-1-allow_once".*after/s, 'the agent was told the option');
settles($node, $follower, 'completed', 'then the follower runs');
is(sql($node, "SELECT count(*) FROM boocoder.message_parts WHERE task_id = $task AND kind = 'permission'"), 1, 'the answer is a part');

# ---- several at once, answered in another order ----

$task = run_task($node, 'ask-many 3', 'demo', agent => 'fake');
ok(asked($task, 3), 'three requests at once');
my @requests = requests($task);
sql($node, "SELECT boocoder.answer_permission($requests[$_]{id}, " . ($_ == 1 ? "'reject'" : "'allow'") . ')') for 2, 0;
sleep 0.3;
is(task_state($node, $task), 'blocked', 'blocked until the last one');
sql($node, "SELECT boocoder.answer_permission($requests[1]{id}, 'reject')");
settles($node, $task, 'completed', 'three answers');
is(join(' ', map { $_->{chosen_option} } requests($task)), 'opt-1-allow_once opt-2-reject_once opt-1-allow_once', 'each got its own');
like(sql_error($node, "SELECT boocoder.answer_permission($requests[1]{id}, 'allow')"), qr/BC001/, 'no answer counts twice');

# ---- cancel answers all that is pending ----

$task = run_task($node, 'ask-many 2', 'demo', agent => 'fake');
ok(asked($task, 2), 'two requests');
sql($node, "SELECT boocoder.cancel($task)");
settles($node, $task, 'cancelled', 'a cancel while a person is waited for', 10);
is(join(' ', map { $_->{status} } requests($task)), 'cancelled cancelled', 'withdraws the requests');
ok(none_left($node), 'and leaves no process');

# ---- the clock stands still while a person is waited for ----

$task = run_task($node, 'ask; text done', 'demo', agent => 'fake', timeout => '2 seconds');
ok(asked($task, 1), 'a task with two seconds of time');
sleep 3;
sql($node, 'SELECT boocoder.answer_permission(' . (requests($task))[0]{id} . ", 'allow')");
settles($node, $task, 'completed', 'has not used them up by waiting');

# ---- a deadline ----

reconfigure($node, "SET boocoder.permission_timeout = 500");
sleep 0.3;
$task = run_task($node, 'ask', 'demo', agent => 'fake');
settles($node, $task, 'completed', 'nobody answers in time');
is((requests($task))[0]{status}, 'expired', 'the request expired');
like(text_of($node, $task), qr/opt-2-reject_once/, 'which rejects');
reconfigure($node, "RESET boocoder.permission_timeout");

# ---- rules ----

sql($node, "SELECT boocoder.add_permission_rule('allow', provider => 'fake', tool_kind => 'edit')");
$task = run_task($node, 'ask', 'demo', agent => 'fake');
settles($node, $task, 'completed', 'a rule answers');
($request) = requests($task);
is("$request->{status} $request->{chosen_option}", 'answered opt-1-allow_once', 'as it says');
like($request->{rule}, qr/^rule \d+$/, 'and is recorded');
$task = run_task($node, 'ask', 'demo', agent => 'fake', permission_policy => 'reject');
settles($node, $task, 'completed', 'the policy of a task');
is((requests($task))[0]{rule}, 'rule 1', 'is less specific than a rule with a condition');
sql($node, 'DELETE FROM boocoder.permission_rules');

# ---- modes ----

for my $agent (qw(fake config))
{
	$task = run_task($node, 'ask; sleep 0.5; text end', 'demo', agent => $agent);
	ok(asked($task, 1), "$agent: a turn under way");
	my $chat = sql($node, "SELECT chat_id FROM boocoder.tasks WHERE id = $task");
	is(sql($node, "SELECT mode FROM boocoder.agent_sessions WHERE chat_id = $chat"), 'ask', "$agent: its mode is known");
	like(sql_error($node, "SELECT boocoder.set_mode($chat, '$agent', 'dream')"), qr/BC005.*ask, auto/s, "$agent: and which there are");
	sql($node, "SELECT boocoder.set_mode($chat, '$agent', 'auto')");
	ok(until_true(sub { sql($node, "SELECT mode FROM boocoder.agent_sessions WHERE chat_id = $chat") eq 'auto' }), "$agent: another one is set meanwhile");
	sql($node, 'SELECT boocoder.answer_permission(' . (requests($task))[0]{id} . ", 'allow')");
	settles($node, $task, 'completed', "$agent: the turn ends");
	my $next = sql($node, "SELECT boocoder.send($task, 'text next')");
	settles($node, $next, 'completed', "$agent: the next turn");
	is(sql($node, "SELECT mode FROM boocoder.agent_sessions WHERE chat_id = $chat"), 'auto', "$agent: is in that mode, too");
}

# ---- a dispatcher that goes while a person is waited for ----

$task = run_task($node, 'ask', 'demo', agent => 'fake');
ok(asked($task, 1), 'a request');
sql($node, 'SELECT pg_terminate_backend(dispatcher_pid) FROM boocoder.status');
ok(asked($task, 2), 'is asked again by the next attempt');
is(join(' ', map { $_->{status} } requests($task)), 'cancelled pending', 'the old one is withdrawn');
sql($node, 'SELECT boocoder.answer_permission(' . (requests($task))[1]{id} . ", 'allow')");
settles($node, $task, 'completed', 'and goes on');
is(sql($node, "SELECT attempt FROM boocoder.tasks WHERE id = $task"), 2, 'as a second attempt');

# ---- retry of a task that waits ----

$task = run_task($node, 'ask', 'demo', agent => 'fake');
ok(asked($task, 1), 'a request');
ok(until_true(sub { task_state($node, $task) eq 'blocked' }), 'blocked');
sql($node, "SELECT boocoder.retry($task)");
ok(asked($task, 2), 'a retry asks again') or explain_task($node, $task);
sql($node, 'SELECT boocoder.answer_permission(' . (requests($task))[1]{id} . ", 'allow')");
settles($node, $task, 'completed', 'and ends');
ok(none_left($node), 'no agent process is left');
$node->stop('fast');
done_testing();
