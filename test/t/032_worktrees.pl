# SPDX-License-Identifier: PostgreSQL
#
# What happens to worktrees between and after their tasks: risk, stash, restore, rewind, removal, reaper, close and delete.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = new_node('worktrees', conf => "boocoder.poll_interval = '300ms'\nboocoder.worktree_grace = '1h'\nboocoder.max_running = 8");
my $repo = make_repo('worktrees', { 'a.txt' => "one\n", 'b.txt' => "two\n", '.gitignore' => "ignored\n" });
add_project($node, 'demo', $repo);
ok(wait_dispatcher($node), 'the dispatcher is there');
add_shell_agent($node, 'shell');
add_fake_acp($node, 'fake');

sub task_in
{
	my ($session, $input, $agent) = @_;
	my $task = sql($node, "INSERT INTO boocoder.tasks (project_id, session_id, agent, input) VALUES (1, $session, "
		  . literal($agent // 'shell') . ', ' . literal($input) . ') RETURNING id');
	return $task;
}

# A session whose first task ran; (session, worktree, path, task)
sub begin
{
	my ($input) = @_;
	my $session = sql($node, 'INSERT INTO boocoder.sessions (project_id) VALUES (1) RETURNING id');
	my $task = task_in($session, $input);
	settles($node, $task, 'completed', "a task: $input");
	my $row = sql_row($node, "SELECT * FROM boocoder.worktrees WHERE session_id = $session AND deleted_at IS NULL");
	return ($session, $row->{id}, $row->{path}, $task);
}

sub risk { return json->decode(sql($node, "SELECT boocoder.worktree_risk($_[0])")) }
sub worktree { return sql_row($node, "SELECT * FROM boocoder.worktrees WHERE id = $_[0]") }
sub wait_worktree { return sql($node, "SELECT boocoder.wait_worktree($_[0], '20s')") }
sub look { sql($node, "SELECT boocoder.refresh_worktree($_[0])"); wait_worktree($_[0]); return risk($_[0]) }
sub risks { return join ' ', @{ $_[0]{risks} } }

sub tree
{
	my ($path) = @_;
	local $ENV{GIT_INDEX_FILE} = "$scratch/index";
	unlink "$scratch/index";
	git($path, 'add', '-A');
	return git($path, 'write-tree');
}

# ---- what would be missed ----

my ($session, $worktree, $path, $task) = begin('echo more >> a.txt; echo new > c.txt');
is(risks(risk($worktree)), 'undecided', 'after a task its changes are undecided');
like(sql_error($node, "SELECT boocoder.remove_worktree($worktree)"), qr/nobody has decided/, 'which keeps the worktree');
sql($node, "SELECT boocoder.apply($task)");
ok(until_true(sub { sql($node, "SELECT bool_and(status = 'applied') FROM boocoder.pending_changes WHERE task_id = $task") eq 't' }), 'applied');
is(risks(risk($worktree)), '', 'then nothing would be missed');
spew("$path/d.txt", "by hand\n");
is(risks(look($worktree)), 'dirty', 'a file that no task reported is dirty');
is_deeply(risk($worktree)->{dirty}, ['d.txt'], 'and named');
cmp_ok(risk($worktree)->{size_bytes}, '>', 0, 'the size is known');
like(sql_error($node, "SELECT boocoder.remove_worktree($worktree)"), qr/BC004|no task has reported/, 'which keeps it, too');
git($path, 'add', '-A');
git($path, qw(-c user.name=t -c user.email=t@example.org commit -q -m work));
is(risks(look($worktree)), 'dirty unpushed', 'a commit is unpushed');
my $next = task_in($session, 'true');
settles($node, $next, 'completed', 'another task reports it');
is(risks(risk($worktree)), 'undecided unpushed', 'so that it waits to be decided');
sql($node, "SELECT boocoder.apply($next)");
ok(until_true(sub { sql($node, "SELECT bool_and(status = 'applied') FROM boocoder.pending_changes WHERE task_id = $next") eq 't' }), 'applied');
is(risks(look($worktree)), 'unpushed', 'the commit itself is nowhere else');
git($repo, 'add', '-A');
git($repo, qw(-c user.name=t -c user.email=t@example.org commit -q -m squashed));
is(risks(look($worktree)), '', 'until it is committed in the project, squashed');

# ---- stash and restore ----

spew("$path/e.txt", "stash me\n");
unlink "$path/b.txt";
my $before = tree($path);
sql($node, "SELECT boocoder.worktree_stash($worktree)");
is(wait_worktree($worktree), 'active', 'stashed');
is(git($path, qw(status --porcelain)), '', 'the worktree is clean');
is(sql($node, "SELECT tree FROM boocoder.worktree_saves WHERE worktree_id = $worktree AND kind = 'stash'"), $before, 'what it held has a name');
sql($node, "SELECT boocoder.worktree_restore($worktree)");
is(wait_worktree($worktree), 'active', 'restored');
is(tree($path), $before, 'to the very same tree');

# ---- rewind ----

my ($rewound, $history, $where, $first) = begin('echo 1 > turn; echo 1 > only-1');
my @turns = ($first);
my @trees = (tree($where));
for my $n (2, 3)
{
	push @turns, task_in($rewound, "echo $n > turn; rm -f only-*; echo $n > only-$n");
	settles($node, $turns[-1], 'completed', "turn $n");
	push @trees, tree($where);
}
for my $n (0, 2, 1)
{
	sql($node, "SELECT boocoder.rewind($rewound, $turns[$n])");
	is(wait_worktree($history), 'active', "back to turn " . ($n + 1));
	is(tree($where), $trees[$n], 'with its tree');
	is(sql($node, "SELECT string_agg(path, ' ' ORDER BY path) FROM boocoder.list_pending($rewound)"), 'only-' . ($n + 1) . ' turn',
		'and its changes are those to decide about');
}
my $after = task_in($rewound, 'echo 4 > four');
settles($node, $after, 'completed', 'a task goes on from there');
is(sql($node, "SELECT string_agg(path, ' ' ORDER BY path) FROM boocoder.list_pending($rewound)"), 'four only-2 turn', 'with what it adds');
like(sql_error($node, "SELECT boocoder.rewind($rewound, $task)"), qr/has no content of task/, 'not to a task of another session');
my $busy = task_in($rewound, 'sleep 20');
ok(wait_task($node, $busy, 'running'), 'while an agent works');
like(sql_error($node, "SELECT boocoder.rewind($rewound, $first)"), qr/an agent is at work/, 'nothing is rewound');
sql($node, "SELECT boocoder.cancel($busy)");
settles($node, $busy, 'cancelled', 'cancelled');

# ---- what was rejected stays rejected ----

my ($firm, undef, $firm_path, $offer) = begin('echo no > no.txt; echo yes > yes.txt');
sql($node, "SELECT boocoder.reject_changes(ARRAY(SELECT id FROM boocoder.list_pending($firm) WHERE path = 'no.txt'))");
my $again = task_in($firm, 'echo more > more.txt');
settles($node, $again, 'completed', 'a task behind a rejection');
is(sql($node, "SELECT string_agg(path, ' ' ORDER BY path) FROM boocoder.list_pending($firm)"), 'more.txt yes.txt', 'does not offer that again');
$again = task_in($firm, 'echo really >> no.txt');
settles($node, $again, 'completed', 'one that changes it further');
is(sql($node, "SELECT string_agg(path, ' ' ORDER BY path) FROM boocoder.list_pending($firm)"), 'more.txt no.txt yes.txt', 'does');
sql($node, "SELECT boocoder.stage_changes(ARRAY(SELECT id FROM boocoder.list_pending($firm) WHERE path = 'yes.txt'))");
is(sql($node, "SELECT path FROM boocoder.list_pending($firm) WHERE staged"), 'yes.txt', 'a change can be marked');

# ---- removal, and taking it back ----

my ($gone, $trash, $trash_path) = begin('echo x > x.txt');
sql($node, "SELECT boocoder.remove_worktree($trash, true)");
is(worktree($trash)->{status}, 'trashed', 'a removed worktree is in the trash');
sleep 0.7;
ok(-e "$trash_path/x.txt", 'its directory stays for the grace');
my $meanwhile = task_in($gone, 'cat x.txt 2> /dev/null; echo y > y.txt');
settles($node, $meanwhile, 'completed', 'the session gets another one');
is(text_of($node, $meanwhile), '', 'without what the first one held');
like(sql_error($node, "SELECT boocoder.undelete_worktree($trash)"), qr/has another worktree/, 'so the first one does not come back beside it');
my ($take, $back, $back_path) = begin('echo x > x.txt');
sql($node, "SELECT boocoder.remove_worktree($back, true)");
is(sql($node, "SELECT boocoder.undelete_worktree($back)"), 't', 'one of a session without another one is taken back');
my $on = task_in($take, 'cat x.txt');
settles($node, $on, 'completed', 'and works on');
is(text_of($node, $on), "x\n", 'with what it holds');

# a removal that has happened is undone from the archive
my $held = tree($trash_path);
$node->append_conf('postgresql.conf', "boocoder.worktree_grace = 0");
$node->reload;
ok(until_true(sub { worktree($trash)->{status} eq 'removed' }), 'when the grace is over it goes') or diag(json->encode(worktree($trash)));
ok(!-e $trash_path, 'with its directory');
is(git($repo, 'rev-parse', worktree($trash)->{archived_ref} . '^{tree}'), $held, 'its content is archived');
my ($revived, $revive, $revive_path) = begin('echo precious > p.txt; mkdir -p deep/er; echo q > deep/er/q');
$held = tree($revive_path);
sql($node, "SELECT boocoder.remove_worktree($revive, true)");
ok(until_true(sub { worktree($revive)->{status} eq 'removed' }), 'another one is removed');
sql($node, "SELECT boocoder.worktree_restore($revive)");
is(wait_worktree($revive), 'active', 'and restored');
is(tree($revive_path), $held, 'with the very same tree');
$on = task_in($revived, 'cat p.txt');
settles($node, $on, 'completed', 'its session goes on there');
is(text_of($node, $on), "precious\n", 'with what it held');

# what changed behind our back is found at the last moment
my ($late, $edited, $edited_path) = begin('true');
spew("$edited_path/late.txt", "unseen\n");
sql($node, "SELECT boocoder.remove_worktree($edited)");
ok(until_true(sub { worktree($edited)->{status} eq 'active' && worktree($edited)->{request_error} }), 'a removal finds what nobody knew of');
like(worktree($edited)->{request_error}, qr/worktree_at_risk/, 'and refuses');
ok(-e "$edited_path/late.txt", 'it is still there');
is(sql($node, "SELECT status FROM boocoder.doctor() WHERE \"check\" = 'worktree $edited'"), 'warning', 'and doctor() tells of it');

# ---- orphans ----

$node->append_conf('postgresql.conf', "boocoder.worktree_grace = '1s'");
$node->reload;
my ($o1, $safe, $safe_path) = begin('true');
my ($o2, $dirty, $dirty_path) = begin('true');
my ($o3, $open, $open_path) = begin('echo z > z.txt');
spew("$dirty_path/mine.txt", "mine\n");
is(risks(look($dirty)), 'dirty', 'one is dirty');
like(sql_error($node, "DELETE FROM boocoder.sessions WHERE id = $o2"), qr/is dirty/, 'its session is not deleted');
like(sql_error($node, "DELETE FROM boocoder.sessions WHERE id = $o3"), qr/is undecided/, 'nor one with undecided changes');
sql($node, "DELETE FROM boocoder.sessions WHERE id = $o1");
is(sql($node, "SELECT count(*) FROM boocoder.tasks WHERE session_id = $o1"), 0, 'a deleted session leaves its tasks without one');
sql($node, "UPDATE boocoder.sessions SET closed_at = now() WHERE id = $o2");
ok(-e $safe_path, 'the worktree survives its session');
ok(until_true(sub { worktree($safe)->{status} eq 'removed' }), 'an orphan that is safe is removed when the grace is over');
sleep 1.5;
is(worktree($dirty)->{status}, 'active', 'one that is not is kept');
ok(-e "$dirty_path/mine.txt", 'with what it holds');
sql($node, "SET boocoder.force_delete = on; DELETE FROM boocoder.sessions WHERE id = $o3");
ok(until_true(sub { worktree($open)->{status} eq 'removed' }), 'deleted by force, it goes');
like(git($repo, 'show', worktree($open)->{archived_ref} . ':z.txt'), qr/z/, 'and what it held is archived');

# ---- close ----

my $chat_session = sql($node, 'INSERT INTO boocoder.sessions (project_id) VALUES (1) RETURNING id');
my ($one, $two) = map { sql($node, "INSERT INTO boocoder.chats (session_id) VALUES ($chat_session) RETURNING id") } 1, 2;
my ($t1, $t2) = map {
	sql($node, "INSERT INTO boocoder.tasks (project_id, session_id, chat_id, agent, input, creator) VALUES (1, $chat_session, $_, 'fake', 'text x', 'chat') RETURNING id")
} $one, $two;
settles($node, $_, 'completed', 'a turn in a chat') for $t1, $t2;
is(sql($node, "SELECT string_agg(status || has_session, ' ') FROM boocoder.agent_sessions_for($chat_session)"), 'idletrue idletrue', 'two agents wait');
my $hanging = sql($node, "INSERT INTO boocoder.tasks (project_id, session_id, chat_id, agent, input, creator) VALUES (1, $chat_session, $one, 'fake', 'sleep 60', 'chat') RETURNING id");
ok(wait_task($node, $hanging, 'running'), 'one of them is at work');
like(sql_error($node, "DELETE FROM boocoder.chats WHERE id = $one"), qr/an agent is at work/, 'its chat is not deleted');
is(sql($node, "SELECT boocoder.close_chat($one)"), 't', 'but closed');
settles($node, $hanging, 'cancelled', 'which cancels its task');
ok(until_true(sub { sql($node, "SELECT count(*) FROM boocoder.backends WHERE chat_id = $one") == 0 }), 'and ends its agent');
is(sql($node, "SELECT count(*) FROM boocoder.backends WHERE chat_id = $two"), 1, 'that of the other chat stays');
sql($node, "DELETE FROM boocoder.chats WHERE id = $two");
ok(until_true(sub { sql($node, "SELECT count(*) FROM boocoder.backends WHERE chat_id = $two") == 0 }), 'a deleted chat ends its agent');
is(sql($node, "SELECT count(*) FROM boocoder.agent_sessions WHERE chat_id = $two"), 0, 'and takes what was known of it');
is(task_state($node, $t2), 'completed', 'its task stays');
my $last = task_in($chat_session, 'sleep 60');
ok(wait_task($node, $last, 'running'), 'a task runs in the session');
sql($node, "SELECT boocoder.close_session($chat_session)");
settles($node, $last, 'cancelled', 'closing the session cancels it');
ok(until_true(sub { sql($node, "SELECT count(*) FROM boocoder.worktrees WHERE session_id = $chat_session AND status = 'removed'") == 1 }), 'and the worktree goes in its time');
ok(none_left($node), 'no agent is left');

# ---- a directory that somebody removed ----

my ($lost, $missing, $missing_path) = begin('echo kept > kept.txt');
rename $missing_path, "$scratch/elsewhere" or die $!;
ok(look($missing)->{missing}, 'a directory that is gone is told');
$on = task_in($lost, 'cat kept.txt');
settles($node, $on, 'completed', 'the next task gets it again');
is(text_of($node, $on), "kept\n", 'as it was at the end of the last turn');

# ---- the budget ----

sql($node, "SELECT boocoder.refresh_worktree(id) FROM boocoder.worktrees WHERE status = 'active'");
ok(until_true(sub { sql($node, "SELECT bool_and(size_bytes > 0) FROM boocoder.worktrees WHERE status = 'active' AND assess_requested_at IS NULL") eq 't' }), 'all are measured');
my ($big, $large, $large_path) = begin('head -c 3000000 /dev/zero > big');
look($large);
$node->append_conf('postgresql.conf', "boocoder.worktree_budget = '2MB'\nboocoder.worktree_grace = '1h'");
$node->reload;
sleep 0.3;
$task = run_task($node, 'true', 'demo', agent => 'shell');
settles($node, $task, 'failed', 'over the budget no worktree is made');
is(sql($node, "SELECT failure_reason FROM boocoder.tasks WHERE id = $task"), 'disk_budget', 'for that reason');
is(sql($node, "SELECT status FROM boocoder.doctor() WHERE \"check\" = 'worktree budget'"), 'error', 'and doctor() tells of that');
sql($node, "SELECT boocoder.remove_worktree($large, true)");
ok(until_true(sub { worktree($large)->{status} eq 'removed' }), 'what is in the trash goes at once then');
sql($node, "SELECT boocoder.retry($task)");
settles($node, $task, 'completed', 'and there is room again');
is(sql($node, "SELECT count(*) FROM boocoder.worktree_disk WHERE id = $large"), 0, 'the view shows what there is');

$node->stop;
done_testing();
