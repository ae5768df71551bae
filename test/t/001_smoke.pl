# SPDX-License-Identifier: PostgreSQL
#
# The spine, end to end: one INSERT becomes a reviewed diff and a changed file.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use Test::More;

my $node = new_node('smoke');
my $repo = make_repo('smoke', { 'hello.txt' => "hello\n", 'sub/keep.txt' => "keep\n" });
my $head = git($repo, 'rev-parse', 'HEAD');

ok(add_project($node, 'demo', $repo), 'a project is added');
add_shell_agent($node);
ok(wait_dispatcher($node), 'the dispatcher is there');

# A plain INSERT, nothing of boocoder called.
my $task = sql($node, <<'SQL');
INSERT INTO boocoder.tasks (project_id, agent, input)
	SELECT id, 'shell', 'echo working; echo "hello, world" > hello.txt; echo more > sub/new.txt'
	FROM boocoder.projects WHERE name = 'demo'
	RETURNING id
SQL
settles($node, $task, 'completed', 'the task completes');

my $row = task_row($node, $task);
is($row->{attempt}, 1, 'at the first attempt');
ok(defined $row->{$_}, "$_ is filled in") for qw(session_id chat_id started_at ended_at);
like($row->{output_summary}, qr/working/, 'the summary has what the agent said');
like(text_of($node, $task), qr/working/, 'and so have the parts of its message');
cmp_ok(scalar(events_of($node, $task, 'text')), '>=', 1, 'the stream has a text event');

is(sql($node, "SELECT string_agg(kind || ' ' || path || ' ' || status, ', ' ORDER BY path) FROM boocoder.pending_changes"
		. " WHERE task_id = $task"),
	'modify hello.txt pending, add sub/new.txt pending', 'the diff waits, one row a file');
is_deeply(repo_files($repo), { 'hello.txt' => "hello\n", 'sub/keep.txt' => "keep\n" },
	'the project is untouched before apply');

my $diff = sql($node, "SELECT boocoder.diff($task)");
spew("$scratch/task.diff", "$diff\n");
is(git($repo, 'apply', '--check', "$scratch/task.diff"), '', 'git apply takes the diff');

my $worktree = sql_row($node, 'SELECT * FROM boocoder.worktrees');
like($worktree->{path}, qr/^\Q@{[worktree_root($node)]}\E\//, 'the worktree lies below the root');
is($worktree->{base_commit}, $head, 'its base is the commit of the project');
like($worktree->{branch}, qr{^boocoder/}, 'on a branch of its own');

sql($node, "SELECT boocoder.apply($task)");
ok(until_true(sub {
	sql($node, "SELECT bool_and(status = 'applied') FROM boocoder.pending_changes WHERE task_id = $task") eq 't' }),
	'apply is carried out after its commit');
is_deeply(repo_files($repo),
	{ 'hello.txt' => "hello, world\n", 'sub/keep.txt' => "keep\n", 'sub/new.txt' => "more\n" },
	'the files in the project changed');
is(git($repo, 'rev-parse', 'HEAD'), $head, 'but not its HEAD');
is(git($repo, 'diff', '--cached', '--name-only'), '', 'and not its index');
is(sql($node, "SELECT decided_by FROM boocoder.pending_changes WHERE task_id = $task LIMIT 1"),
	sql($node, 'SELECT current_user'), 'who decided is recorded');

# The next task of the session sees only new work in its diff.
my $second = run_task($node, 'cat hello.txt; echo third > third.txt', 'demo',
	agent => 'shell', session => $row->{session_id});
settles($node, $second, 'completed', 'a second task in the same session');
like(text_of($node, $second), qr/hello, world/, 'it works where the first one left off');
is(sql($node, "SELECT string_agg(path, ' ') FROM boocoder.pending_changes WHERE task_id = $second"),
	'third.txt', 'its diff holds only what is new');
is(sql($node, 'SELECT count(*) FROM boocoder.worktrees'), '1', 'one worktree serves the session');

ok(none_left($node), 'no agent process is left');
$node->stop('fast');
done_testing();
