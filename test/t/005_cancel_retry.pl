# SPDX-License-Identifier: PostgreSQL
#
# cancel, retry, wait, attach, events_since, inbox, cost: what a person does with a task after it was enqueued.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use Test::More;

my $node = new_node('cancel', conf => <<'CONF');
boocoder.max_running = 2
boocoder.cancel_grace = '1s'
boocoder.term_grace = '500ms'
CONF
my $repo = make_repo('cancel');
my $project = add_project($node, 'demo', $repo);
add_shell_agent($node);
ok(wait_dispatcher($node), 'the dispatcher is there');

# Starts a task and waits until its agent really runs.
sub running_task
{
	my ($script, %option) = @_;
	my $task = run_task($node, "echo up; $script", 'demo', agent => 'shell', %option);
	until_true(sub { text_seen($task, qr/up/) }) or explain_task($node, $task);
	return $task;
}

sub text_seen
{
	my ($task, $pattern) = @_;
	return said_so_far($node, $task) =~ $pattern;
}

# ---- cancel ----

my $waiting = run_task($node, 'true', 'demo', agent => 'shell', run_at => \"now() + interval '1 hour'");
is(sql($node, "SELECT boocoder.cancel($waiting)"), 't', 'cancel of a pending task');
is(task_state($node, $waiting), 'cancelled', 'takes effect at once');
is(sql($node, "SELECT boocoder.cancel($waiting)"), 'f', 'a second cancel says that there is nothing to do');

my $began = now();
my $task = running_task('echo kept > kept.txt; while :; do sleep 0.1; done');
sql($node, "SELECT boocoder.cancel($task)");
settles($node, $task, 'cancelled', 'cancel of a running task', 10);
ok(none_left($node), 'its processes are gone');
like(text_of($node, $task), qr/up/, 'what it said is kept');

# One that ignores SIGTERM and SIGINT, with a child that does so in a session of its own.
$task = running_task(q{trap '' TERM INT HUP; setsid sh -c 'trap "" TERM INT HUP; while :; do sleep 0.1; done' & while :; do sleep 0.1; done});
sql($node, "SELECT boocoder.cancel($task)");
settles($node, $task, 'cancelled', 'cancel of an agent that ignores signals', 15);
ok(none_left($node), 'its processes are gone, the grandchild too');

my $missing = sql_error($node, 'SELECT boocoder.cancel(999999)');
like($missing, qr/ERROR/, 'cancel of a task that is not there is an error');

# ---- retry ----

my $failing = run_task($node, 'n=$(cat n 2>/dev/null || echo 0); n=$((n + 1)); echo $n > n; echo "try $n"; [ $n -ge 2 ]',
	'demo', agent => 'shell');
settles($node, $failing, 'failed', 'a task fails');
my $row = task_row($node, $failing);
is($row->{failure_reason}, 'exit_nonzero', 'its reason');
like($row->{output_summary} // '', qr/try 1/, 'its last words');

my ($entry) = sql_rows($node, "SELECT * FROM boocoder.inbox WHERE task_id = $failing");
ok($entry, 'it is in the inbox');
like(json->encode($entry), qr/exit_nonzero/, 'with its reason');
like(json->encode($entry), qr/inbox_retry|retry/, 'and what to call');

is(sql($node, "SELECT boocoder.inbox_retry($failing)"), $failing, 'inbox_retry');
settles($node, $failing, 'completed', 'the second attempt completes');
my $second = task_row($node, $failing);
is($second->{attempt}, 2, 'it is attempt 2');
is($second->{session_id}, $row->{session_id}, 'in the same session, so in the same worktree');
cmp_ok(scalar(events_of($node, $failing, 'text')), '>=', 2, 'the history of both attempts is kept');
is(sql($node, "SELECT count(*) FROM boocoder.inbox WHERE task_id = $failing"), '0', 'it left the inbox');

my $error = sql_error($node, "SELECT boocoder.inbox_retry($failing)");
like($error, qr/ERROR: +\w{5}:/, 'inbox_retry of a completed task is an error');
$error = sql_error($node, "SELECT boocoder.retry($failing)");
my ($state_code) = $error =~ /ERROR: +(\w{5}):/;
like($state_code // '', qr/^(?!XX|22|23)\w{5}$/, 'retry of a completed task too, with a SQLSTATE of its own');
$error = sql_error($node, "UPDATE boocoder.tasks SET state = 'running' WHERE id = $failing");
like($error, qr/ERROR/, 'no other move out of completed either');

is(sql($node, "SELECT boocoder.retry($task)"), $task, 'retry of a cancelled task');
ok(until_true(sub { task_state($node, $task) eq 'running' }), 'it runs again');
sql($node, "SELECT boocoder.cancel($task)");
settles($node, $task, 'cancelled', 'and is cancelled again', 15);

# ---- max_attempts ----

my $stubborn = run_task($node, 'exit 1', 'demo', agent => 'shell', max_attempts => 3);
ok(until_true(sub { my $t = task_row($node, $stubborn); $t->{state} eq 'failed' }), 'a task with attempts left fails');
is(task_row($node, $stubborn)->{failure_reason}, 'exit_nonzero', 'with its reason');

# ---- wait ----

my $slow = running_task('while [ ! -e open ]; do sleep 0.05; done');
$began = now();
is(sql($node, "SELECT boocoder.wait($slow, interval '300 ms')"), 'running', 'wait returns the state at its time-out');
cmp_ok(now() - $began, '<', 5, 'in time');
my $waiter = session_open($node);
my $path = sql($node, "SELECT w.path FROM boocoder.worktrees w JOIN boocoder.tasks t USING (session_id) WHERE t.id = $slow");
$waiter->query_until(qr/asked/, "\\echo asked\nSELECT boocoder.wait($slow, interval '60 s') AS settled;\n");
spew("$path/open", '');
like($waiter->query("SELECT 1"), qr/completed/, 'wait returns when the task settles');
session_close($waiter);

# ---- attach and events_since ----

my $talking = run_task($node, 'for i in 1 2 3 4 5; do echo "line $i"; done; while [ ! -e open ]; do sleep 0.05; done; echo last',
	'demo', agent => 'shell');
ok(until_true(sub { text_seen($talking, qr/line 5/) }), 'a task talks');
$path = sql($node, "SELECT w.path FROM boocoder.worktrees w JOIN boocoder.tasks t USING (session_id) WHERE t.id = $talking");

my ($attached_out, $attached_err) = ('', '');
my $attach = IPC::Run::start(
	[ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres') ],
	'<', \"CALL boocoder.attach($talking);\n", '>', \$attached_out, '2>', \$attached_err,
	IPC::Run::timeout(deadline_seconds()));
# The client sees it while the task still runs.
ok(until_true(sub { $attach->pump_nb; "$attached_out$attached_err" =~ /line 5/ }), 'attach shows what was said before');
is(task_state($node, $talking), 'running', 'while the task runs');
spew("$path/open", '');
$attach->finish;
is($attach->result(0), 0, 'attach ends with the task');
like("$attached_out$attached_err", qr/last/, 'and shows what came meanwhile');

my @all = sql_rows($node, "SELECT * FROM boocoder.events_since($talking, 0) ORDER BY seq");
is_deeply([ map { $_->{seq} } @all ], [ map { $_->{seq} } events_of($node, $talking) ],
	'events_since from 0 is every event');
my $middle = $all[ int(@all / 2) ]{seq};
is_deeply([ map { $_->{seq} } sql_rows($node, "SELECT * FROM boocoder.events_since($talking, $middle) ORDER BY seq") ],
	[ grep { $_ > $middle } map { $_->{seq} } @all ], 'from the middle exactly the remainder');

# Readers that follow with events_since while events stream in: no gap and no duplicate.
my $flood = run_task($node, 'i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo "n $i"; done', 'demo', agent => 'shell');
my ($seen, $text, $last) = (0, '', 0);
ok(until_true(sub {
	my $settled = task_state($node, $flood) =~ /completed|failed/;
	for my $event (sql_rows($node, "SELECT seq, kind, payload FROM boocoder.events_since($flood, $last) ORDER BY seq"))
	{
		$seen++ if $event->{seq} <= $last;
		$last = $event->{seq};
		$text .= $event->{payload}{delta} if $event->{kind} eq 'text';
	}
	return $settled }), 'a reader follows a flood');
is($seen, 0, 'no duplicate');
is($text, join('', map { "n $_\n" } 1 .. 3000), 'no gap');

# ---- send, ls, task_detail, status, doctor ----

my $follow = sql($node, "SELECT boocoder.send($talking, 'ls')");
settles($node, $follow, 'completed', 'send enqueues a follow-up task');
is(task_row($node, $follow)->{chat_id}, task_row($node, $talking)->{chat_id}, 'in the same chat');
like(text_of($node, $follow), qr/open/, 'and worktree');
cmp_ok(sql($node, "SELECT count(*) FROM boocoder.ls('completed', 'demo')"), '>=', 3, 'ls lists by state and project');
my $detail = json->decode(sql($node, "SELECT boocoder.task_detail($talking)"));
like(json->encode($detail), qr/line 5/, 'task_detail has what the task said');
is(scalar(sql_rows($node, 'SELECT * FROM boocoder.status')), 1, 'status is one row');
my @checks = sql_rows($node, 'SELECT * FROM boocoder.doctor()');
cmp_ok(scalar(@checks), '>', 3, 'doctor looks at several things');
my @errors = grep { $_->{status} eq 'error' } @checks;
is(scalar(@errors), 0, 'and finds nothing wrong here');
diag(json->encode($_)) for @errors;

ok(none_left($node), 'no agent process is left');
$node->stop('fast');
done_testing();
