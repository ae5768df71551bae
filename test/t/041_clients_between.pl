# SPDX-License-Identifier: PostgreSQL
#
# Transactions of clients that stay open, and calls that meet: each delays or fails only itself.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use Test::More;

my $node = new_node('between', conf => "boocoder.max_running = 6\nboocoder.poll_interval = '500ms'\nboocoder.probe_ttl = '1h'");
my $repo = make_repo('between', { 'a.txt' => "one\n", 'b.txt' => "two\n" });
add_project($node, 'demo', $repo);
ok(wait_dispatcher($node), 'the dispatcher is there');
add_shell_agent($node, 'shell');
add_fake_acp($node, 'fake', '--modes');
sql($node, "UPDATE boocoder.providers SET permission_policy = 'ask' WHERE name = 'fake'");

# Whatever a client holds: others run, speak and are cancelled meanwhile.
sub others_go_on
{
	my ($what) = @_;
	my $task = run_task($node, 'for i in 1 2 3 4 5 6 7 8; do echo word$i; sleep 0.1; done', 'demo', agent => 'shell');
	my $endless = run_task($node, 'echo begun; sleep 60', 'demo', agent => 'shell');
	ok(until_true(sub { said_so_far($node, $task) =~ /word3/ }, 5), "$what: what another agent says is seen");
	settles($node, $task, 'completed', "$what: another task ends", 10);
	ok(until_true(sub { said_so_far($node, $endless) =~ /begun/ }, 5), "$what: a third one speaks");
	sql($node, "SELECT boocoder.cancel($endless)");
	settles($node, $endless, 'cancelled', "$what: and is cancelled", 10);
}

# ---- set_mode() in a chat whose agent tells its modes ----

my $chat = new_chat($node);
my $session = sql($node, "SELECT session_id FROM boocoder.chats WHERE id = $chat");
my $client = session_open($node);
$client->query_safe("BEGIN; SELECT boocoder.set_mode($chat, 'fake', 'auto');");
my $held = sql($node, "INSERT INTO boocoder.tasks (project_id, session_id, agent, input) VALUES (1, $session, 'fake', 'text hello') RETURNING id");
others_go_on('set_mode() for an agent that was never there');
$client->query_safe('COMMIT');
settles($node, $held, 'completed', 'the session whose chat it was goes on, too');
$held = sql($node, "INSERT INTO boocoder.tasks (project_id, session_id, chat_id, agent, input) VALUES (1, $session, $chat, 'fake', 'text one') RETURNING id");
settles($node, $held, 'completed', 'the agent is there now');
$client->query_safe("BEGIN; SELECT boocoder.set_mode($chat, 'fake', 'ask');");
$held = sql($node, "INSERT INTO boocoder.tasks (project_id, session_id, chat_id, agent, input) VALUES (1, $session, $chat, 'fake', 'text two') RETURNING id");
others_go_on('set_mode() for one that is');
is(task_state($node, $held), 'running', 'the end of the task in its chat waits for it');
$client->query_safe('COMMIT');
settles($node, $held, 'completed', 'and comes');

# ---- a lock on a session whose agent tells of itself for the first time ----

add_fake_acp($node, 'quiet');
$held = run_task($node, 'sleep 3; plan A|B; text done', 'demo', agent => 'quiet');
ok(until_true(sub { task_state($node, $held) eq 'running' }), 'an agent runs');
$client->query_safe("BEGIN; SELECT 1 FROM boocoder.sessions s JOIN boocoder.tasks t ON t.session_id = s.id WHERE t.id = $held FOR UPDATE OF s;");
others_go_on('a lock on a session');
ok(until_true(sub { sql($node, "SELECT count(*) FROM boocoder.events WHERE task_id = $held AND kind = 'plan'") eq '1' }), 'what it tells is stored meanwhile');
others_go_on('a lock on a session whose agent has told something');
$client->query_safe('COMMIT');
settles($node, $held, 'completed', 'its own task ends when it is free');

# ---- answer_permission() of a request that the agent withdraws, or that ends with its task ----

$held = run_task($node, 'ask', 'demo', agent => 'fake');
ok(until_true(sub { task_state($node, $held) eq 'blocked' }), 'an agent asks') or explain_task($node, $held);
my $request = sql($node, "SELECT id FROM boocoder.permission_requests WHERE task_id = $held");
$client->query_safe("BEGIN; SELECT boocoder.answer_permission($request, 'allow');");
sql($node, "SELECT boocoder.cancel($held)");
others_go_on('answer_permission()');
settles($node, $held, 'cancelled', 'the task that asked is cancelled meanwhile');
$client->query_safe('ROLLBACK');
ok(until_true(sub { sql($node, "SELECT status FROM boocoder.permission_requests WHERE id = $request") eq 'cancelled' }, 10), 'nobody is asked any more');
is(sql($node, "SELECT count(*) FROM boocoder.inbox WHERE task_id = $held"), 0, 'and nothing waits in the inbox');

# ---- probe_agents() while a dispatcher starts ----

$client->query_safe('BEGIN; SELECT boocoder.probe_agents();');
my $pid = dispatcher_pid($node);
sql($node, "SELECT pg_terminate_backend($pid)");
ok(until_true(sub { my $now = dispatcher_pid($node); $now ne '' && $now ne $pid }, 2), 'another dispatcher is there in 2 s');
others_go_on('probe_agents()');
$client->query_safe('COMMIT');
ok(until_true(sub { sql($node, "SELECT status FROM boocoder.available_agents WHERE name = 'fake'") =~ /ready/ }), 'agents are looked at then');

# ---- more locked rows than one pass looks at ----

sql($node, q{DO $$
	DECLARE s bigint;
	BEGIN
		FOR i IN 1 .. 130 LOOP
			INSERT INTO boocoder.sessions (project_id, title) VALUES (1, 'locked') RETURNING id INTO s;
			INSERT INTO boocoder.tasks (project_id, session_id, agent, input, run_at) VALUES (1, s, 'shell', 'true', now() + interval '1 day');
		END LOOP;
	END $$});
$client->query_safe("BEGIN; SELECT count(*) FROM (SELECT 1 FROM boocoder.sessions WHERE title = 'locked' FOR UPDATE) x;");
sql($node, "UPDATE boocoder.tasks SET run_at = NULL, priority = 5 WHERE state = 'pending' AND run_at IS NOT NULL");
others_go_on('130 locked sessions, more urgent');
is(sql($node, "SELECT count(*) FROM boocoder.tasks WHERE state = 'pending'"), 130, 'their tasks wait');
$client->query_safe('COMMIT');
ok(until_true(sub { sql($node, "SELECT count(*) FROM boocoder.tasks WHERE state IN ('pending', 'running')") eq '0' }, 60), 'and run when they are free');

# ---- worktrees that a client is about to bring back ----

reconfigure($node, "SET boocoder.worktree_grace = '1h'");
my @back = map { run_task($node, 'true', 'demo', agent => 'shell') } 1 .. 12;
settles($node, $_, 'completed', 'a worktree to be', 30) for @back;
my $back = join ',', @back;
ok(until_true(sub { sql($node, 'SHOW boocoder.worktree_grace') eq '1h' }), 'worktrees stay in the trash');
sql($node, "SELECT boocoder.remove_worktree(w.id, true) FROM boocoder.worktrees w JOIN boocoder.tasks t USING (session_id) WHERE t.id IN ($back)");
$client->query_safe("BEGIN; SELECT boocoder.undelete_worktree(w.id) FROM boocoder.worktrees w JOIN boocoder.tasks t USING (session_id) WHERE t.id IN ($back);");
sql($node, "INSERT INTO boocoder.tasks (project_id, session_id, agent, input, priority) SELECT 1, session_id, 'shell', 'true', 9 FROM boocoder.tasks WHERE id IN ($back)");
others_go_on('undelete_worktree() of many');
$client->query_safe('COMMIT');
ok(until_true(sub { sql($node, "SELECT count(*) FROM boocoder.tasks WHERE priority = 9 AND state = 'completed'") eq '12' }, 30), 'their tasks run in them');
is(sql($node, "SELECT count(*) FROM boocoder.worktrees w JOIN boocoder.tasks t USING (session_id) WHERE t.id IN ($back)"), 12, 'and in no others');
reconfigure($node, "SET boocoder.worktree_grace = '0'");

# ---- a removal that meets a claim ----

until_true(sub { sql($node, 'SHOW boocoder.worktree_grace') eq '0' });
my $first = run_task($node, 'echo first >> a.txt', 'demo', agent => 'shell');
settles($node, $first, 'completed', 'a task has a worktree');
my $row = sql_row($node, "SELECT w.id, w.session_id FROM boocoder.worktrees w JOIN boocoder.tasks t USING (session_id) WHERE t.id = $first");
$client->query_safe("BEGIN; SELECT boocoder.remove_worktree($row->{id}, true);");
my $next = sql($node, "SELECT boocoder.send($first, 'echo next >> b.txt')");
others_go_on('remove_worktree()');
is(task_state($node, $next), 'pending', 'the next task of its session waits to see which worktree it has');
$client->query_safe('COMMIT');
settles($node, $next, 'completed', 'it gets another one');
is(sql($node, "SELECT string_agg(path, ' ') FROM boocoder.pending_changes WHERE task_id = $next AND status = 'pending'"), 'b.txt', 'its change is offered');
sql($node, "SELECT boocoder.apply($next)");
ok(until_true(sub { sql($node, "SELECT status FROM boocoder.pending_changes WHERE task_id = $next") eq 'applied' }), 'and can be applied');
is(slurp("$repo/b.txt"), "two\nnext\n", 'into the checkout');

# ---- what was asked of a worktree comes before the next task ----

my ($one, $two);
$one = run_task($node, 'echo one > c.txt', 'demo', agent => 'shell');
settles($node, $one, 'completed', 'a turn');
$two = sql($node, "SELECT boocoder.send($one, 'echo two > c.txt')");
settles($node, $two, 'completed', 'another turn');
$session = sql($node, "SELECT session_id FROM boocoder.tasks WHERE id = $one");
my $three = sql($node, "SELECT boocoder.rewind($session, $one); SELECT boocoder.send($one, 'cat c.txt; echo three > d.txt')");
settles($node, $three, 'completed', 'rewind() and send() in one go');
is(text_of($node, $three), "one\n", 'the turn finds what it was rewound to');
is(sql($node, "SELECT string_agg(path, ' ' ORDER BY path) FROM boocoder.pending_changes WHERE session_id = $session AND status = 'pending'"), 'c.txt d.txt', 'its changes are what is offered');

# ---- a session closed by force while its agent is at work ----

my $working = run_task($node, 'echo new > new.txt; echo begun; sleep 60', 'demo', agent => 'shell');
ok(until_true(sub { said_so_far($node, $working) =~ /begun/ }), 'an agent is at work');
$session = sql($node, "SELECT session_id FROM boocoder.tasks WHERE id = $working");
sql($node, "SELECT boocoder.close_session($session, force => true)");
settles($node, $working, 'cancelled', 'it is cancelled');
ok(until_true(sub { sql($node, "SELECT status FROM boocoder.worktrees WHERE session_id = $session") eq 'removed' }), 'its worktree goes');
is(sql($node, "SELECT status FROM boocoder.pending_changes WHERE task_id = $working"), 'rejected', 'its change is rejected');
my $ref = sql($node, "SELECT archived_ref FROM boocoder.worktrees WHERE session_id = $session");
is(git($repo, 'show', "$ref:new.txt"), 'new', 'and in the archive');
others_go_on('a session closed by force');

session_close($client);
unlike(slurp($node->logfile), qr/_next_actions[^\n]*failed/, 'no pass of the dispatcher failed');
$node->stop('fast');
done_testing();
