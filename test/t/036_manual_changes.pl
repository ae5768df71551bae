# SPDX-License-Identifier: PostgreSQL
#
# Changes that a person makes in a session's worktree; how many turns can be gone back to; worktrees without a row.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = new_node('manual', conf => "boocoder.poll_interval = '300ms'\nboocoder.max_turn_snapshots = 3\nboocoder.max_diff = '64kB'");
my $repo = make_repo('manual', { 'a.txt' => "one\n", 'b.txt' => "two\n", 'run.sh' => "#!/bin/sh\n", 'dir/c.txt' => "three\n", '.gitignore' => "ignored\n" });
chmod 0755, "$repo/run.sh";
git($repo, qw(commit -q -a -m exec));
add_project($node, 'demo', $repo);
ok(wait_dispatcher($node), 'the dispatcher is there');
add_shell_agent($node, 'shell');

sub task_in
{
	my ($session, $input) = @_;
	my $task = sql($node, "INSERT INTO boocoder.tasks (project_id, session_id, agent, input) VALUES (1, $session, 'shell', "
		  . literal($input) . ') RETURNING id');
	settles($node, $task, 'completed', "a task: $input");
	return $task;
}

my $session = sql($node, 'INSERT INTO boocoder.sessions (project_id) VALUES (1) RETURNING id');
like(sql_error($node, "SELECT boocoder.queue_manual_change($session, 'a.txt', 'x')"), qr/BC002|has no worktree/, 'a session without a worktree is refused');
my $task = task_in($session, 'echo more >> a.txt; mv b.txt moved.txt');
my $row = sql_row($node, "SELECT * FROM boocoder.worktrees WHERE session_id = $session AND deleted_at IS NULL");
my ($worktree, $path) = @$row{qw(id path)};

# Writes a file as a frontend would; what wait_worktree() says
sub edit
{
	my ($file, $content) = @_;
	sql($node, "SELECT boocoder.queue_manual_change($session, " . literal($file) . ', ' . (defined $content ? literal($content) : 'NULL') . ')');
	return sql($node, "SELECT boocoder.wait_worktree($worktree, '20s')");
}

# path, agent, kind of what is undecided
sub offered
{
	return sql($node, "SELECT string_agg(concat_ws(' ', kind, path, coalesce(agent, 'by hand')), ', ' ORDER BY path)"
		  . " FROM boocoder.list_pending($session)");
}

is(offered(), 'modify a.txt shell, rename moved.txt shell', 'what the agent offers');

# ---- a change by hand ----

is(edit('new/file.txt', "by hand\n"), 'active', 'a new file is written');
is(slurp("$path/new/file.txt"), "by hand\n", 'into the worktree');
ok(!-e "$repo/new", 'not into the project');
is(offered(), 'modify a.txt shell, rename moved.txt shell, add new/file.txt by hand', 'and offered as nobody\'s agent');
is(edit('a.txt', "one\nmine\n"), 'active', 'a file that an agent changed');
is(offered(), 'modify a.txt by hand, rename moved.txt shell, add new/file.txt by hand', 'takes the place of what the agent offered');
is(sql($node, "SELECT count(*) FROM boocoder.pending_changes WHERE task_id = $task AND status = 'superseded' AND path = 'a.txt'"), 1, 'which stays as history');
is(edit('moved.txt', "two\nand mine\n"), 'active', 'a file that an agent renamed');
is(offered(), 'modify a.txt by hand, rename moved.txt by hand, add new/file.txt by hand', 'is offered with both of its names');
is(edit('run.sh', "#!/bin/sh\necho\n"), 'active', 'a program');
ok(-x "$path/run.sh", 'stays one');
is(edit('dir/c.txt', undef), 'active', 'no content deletes');
ok(!-e "$path/dir/c.txt", 'the file');
is(sql($node, "SELECT boocoder.worktree_risk($worktree) -> 'dirty_count'"), 0, 'nothing of it is unreported');
is(sql($node, "SELECT count(*) FROM boocoder.worktree_saves WHERE worktree_id = $worktree AND kind = 'undo'"), 5, 'what was there before can be gone back to');

# ---- an agent after it ----

my $next = task_in($session, 'cat a.txt new/file.txt; echo agent >> new/file.txt');
is(text_of($node, $next), "one\nmine\nby hand\n", 'the next task sees what was written');
is(offered(), 'modify a.txt by hand, delete dir/c.txt by hand, rename moved.txt by hand, add new/file.txt shell, modify run.sh by hand',
	'only what the agent changed further is the agent\'s');
my $ids = sql($node, "SELECT array_agg(id) FROM boocoder.list_pending($session)");
sql($node, "SELECT boocoder.apply_changes('$ids')");
ok(until_true(sub { sql($node, "SELECT count(*) FROM boocoder.pending_changes WHERE status = 'applied'") eq '5' }), 'all of it can be applied')
  or diag(sql($node, "SELECT path, status, error FROM boocoder.pending_changes"));
is(slurp("$repo/a.txt"), "one\nmine\n", 'a file by hand is in the project');
is(slurp("$repo/moved.txt"), "two\nand mine\n", 'the renamed one');
ok(!-e "$repo/b.txt" && !-e "$repo/dir/c.txt", 'what is gone is gone');
ok(-x "$repo/run.sh", 'the program is one');

# a change that conflicts
is(edit('a.txt', "one\nagain\n"), 'active', 'written again');
spew("$repo/a.txt", "somebody else\n");
my $again = sql($node, "SELECT id FROM boocoder.list_pending($session)");
sql($node, "SELECT boocoder.apply_changes('{$again}')");
ok(until_true(sub { sql($node, "SELECT status FROM boocoder.pending_changes WHERE id = $again") eq 'conflict' }), 'a conflict is one');
like(sql($node, "SELECT what_to_do FROM boocoder.inbox WHERE reason = 'conflict'"), qr/apply_changes\('\{$again\}'\)/, 'and in the inbox, with what to call');
sql($node, "SELECT boocoder.reject_changes('{$again}')");

# ---- what is refused ----

my $before = offered();
for my $case (['../out', 'dot-dot'], ['/etc/passwd', 'absolute'], ['.git/config', 'the git directory'], ['dir/../../x', 'dot-dot inside'], ['a.txt/b', 'below a file'],
	['dir', 'no file to delete', 1], ['nothing.txt', 'nothing to delete', 1])
{
	my ($file, $name, $deletes) = @$case;
	like(edit($file, $deletes ? undef : "x\n"), qr/^(unsafe_path|conflict): /, "refused: $name");
}
isnt(edit('ignored', "x\n"), 'active', 'refused: an ignored file');
symlink '/etc', "$path/link";
like(edit('link/passwd', "x\n"), qr/^conflict: /, 'refused: below a symbolic link');
like(edit('link', "x\n"), qr/^conflict: /, 'refused: a symbolic link');
unlink "$path/link";
is(offered() // '', $before // '', 'nothing of it is offered');
like(sql_error($node, "SELECT boocoder.queue_manual_change($session, '', 'x')"), qr/no path/, 'refused: no path');
like(sql_error($node, "SELECT boocoder.queue_manual_change($session, 'big', repeat('x', 70000))"), qr/max_diff/, 'refused: more than max_diff');
my $busy = sql($node, "INSERT INTO boocoder.tasks (project_id, session_id, agent, input) VALUES (1, $session, 'shell', 'sleep 30') RETURNING id");
until_true(sub { task_state($node, $busy) eq 'running' });
like(sql_error($node, "SELECT boocoder.queue_manual_change($session, 'a.txt', 'x')"), qr/an agent is at work/, 'refused: while an agent works');
sql($node, "SELECT boocoder.cancel($busy)");
settles($node, $busy, 'cancelled', 'cancelled');

# ---- turns that can be gone back to ----

my @tasks = map { task_in($session, "echo $_ > turn.txt") } 1 .. 5;
my @refs = split /\n/, git($repo, 'for-each-ref', '--format=%(refname)', 'refs/boocoder/turns');
is(scalar @refs, 3, 'three turns are kept in the repository') or diag(join "\n", @refs);
is(sql($node, "SELECT string_agg(task_id::text, ' ' ORDER BY task_id) FROM boocoder.worktree_saves WHERE worktree_id = $worktree AND kind = 'turn'"),
	join(' ', @tasks[2 .. 4]), 'the last ones, and so the rows say');
like(sql_error($node, "SELECT boocoder.rewind($session, $tasks[0])"), qr/has no content of task/, 'to an older one there is no way back');
sql($node, "SELECT boocoder.rewind($session, $tasks[2])");
is(sql($node, "SELECT boocoder.wait_worktree($worktree, '20s')"), 'active', 'to a kept one there is');
is(slurp("$path/turn.txt"), "3\n", 'with its content');

# ---- what lies there without a row ----

sub drift { return sql($node, "SELECT string_agg(detail, E'\\n' ORDER BY detail) FROM boocoder.doctor() WHERE detail ~ 'is no worktree|there is no row|and [0-9]+ more'") }
is(sql($node, "SELECT status FROM boocoder.doctor() WHERE \"check\" = 'project \"demo\"'"), 'ok', 'the project is well');
is(drift(), '', 'nothing is found where all is known');
my $root = $path =~ s{/worktrees/.*}{}r;
my $folder = $path =~ s{/[^/]+$}{}r;
mkdir "$root/worktrees/foreign";
spew("$root/worktrees/foreign/precious", "x\n");
mkdir "$folder/s999";
git($repo, qw(worktree add -q --detach), "$folder/s998");
rename "$repo/.git/worktrees/s998", "$repo/.git/worktrees/boocoder-998";
git($repo, qw(worktree add -q --detach), "$scratch/elsewhere");
is(drift(), join("\n", map { "\"$_\" is no worktree of this database" } "$root/worktrees/foreign", "$folder/s998", "$folder/s999")
	  . "\ngit knows the worktree \"boocoder-998\" at \"$folder/s998\", of which there is no row", 'directories and entries of git without a row are reported');
sql($node, "UPDATE boocoder.worktrees SET assess_requested_at = now()");
sleep 1;
is(slurp("$root/worktrees/foreign/precious"), "x\n", 'and left alone');
system 'rm', '-rf', $path;
sql($node, "SELECT boocoder.refresh_worktree($worktree)");
sql($node, "SELECT boocoder.wait_worktree($worktree, '20s')");
is(sql($node, "SELECT detail FROM boocoder.doctor() WHERE \"check\" = 'worktree $worktree'"), 'its directory is gone', 'a row without a directory is reported');
task_in($session, 'cat turn.txt');
is(sql($node, "SELECT count(*) FROM boocoder.doctor() WHERE \"check\" = 'worktree $worktree'"), 0, 'and mended by the next task');
mkdir "$root/worktrees/more$_" for 1 .. 25;
like(drift(), qr/and 8 more/, 'of many some are named, the others counted');

$node->stop;
done_testing();
