# SPDX-License-Identifier: PostgreSQL
#
# What an agent changed, whole and exact: every kind of change is in the diff, the diff is a patch that git takes, apply
# brings it into the project all or nothing and touches nothing else.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use Test::More;

my $node = new_node('diff');
add_shell_agent($node);
ok(wait_dispatcher($node), 'the dispatcher is there');

my $binary = join '', map { chr($_ % 256) } 0 .. 1023;
my %base = (
	'modify.txt' => join('', map { "line $_\n" } 1 .. 30),
	'delete.txt' => "to be deleted\n",
	'rename-me.txt' => join('', map { "row $_\n" } 1 .. 20),
	'tool.sh' => "#!/bin/sh\necho hi\n",
	'image.bin' => $binary,
	'link-target' => "target\n",
	'no-newline' => 'no newline at the end',
	'dir/deep/file' => "deep\n",
	'.gitignore' => "*.log\nbuild/\n",
	'becomes-link' => "a file\n");
my $number = 0;

# A project of its own with those files; its path.
sub project
{
	my ($name) = @_;
	my $path = make_repo($name, {%base});
	add_project($node, $name, $path);
	return $path;
}

sub change
{
	my ($project, $script, %option) = @_;
	my $task = run_task($node, $script, $project, agent => 'shell', %option);
	wait_settled($node, $task) eq 'completed' or explain_task($node, $task);
	return $task;
}

sub changes_of
{
	my ($task) = @_;
	return sql($node, "SELECT string_agg(kind || ' ' || coalesce(old_path || ' -> ', '') || path, ', ' ORDER BY path)"
		. " FROM boocoder.pending_changes WHERE task_id = $task");
}

# Applies and waits for the outcome; the statuses, as "applied 3, conflict 1".
sub apply
{
	my ($task) = @_;
	sql($node, "SELECT boocoder.apply($task)");
	return outcome($task);
}

sub outcome
{
	my ($task) = @_;
	until_true(sub {
		sql($node, "SELECT count(*) FROM boocoder.pending_changes WHERE task_id = $task AND status IN ('applying')") eq '0' })
	  or explain_task($node, $task);
	return sql($node, "SELECT string_agg(status || ' ' || n, ', ' ORDER BY status) FROM (SELECT status, count(*) AS n"
		. " FROM boocoder.pending_changes WHERE task_id = $task GROUP BY 1) q");
}

# git takes the diff on a fresh checkout of the base, and what it makes of it is what the agent left.
sub diff_is_exact
{
	my ($task, $repo, $expect, $what) = @_;
	my $clone = "$scratch/clone-" . ++$number;
	git($repo, 'worktree', 'add', '-q', '--detach', $clone, 'HEAD');
	# As a client gets it: one value, binary-safe through a file.
	$node->safe_psql('postgres', "\\pset format unaligned\n\\pset tuples_only on\n\\o $clone.diff\nSELECT boocoder.diff($task);\n\\o\n");
	is(eval { git($clone, 'apply', '--check', "$clone.diff"); 'fine' } // $@, 'fine', "$what: git apply --check");
	eval { git($clone, 'apply', "$clone.diff") };
	is_deeply(repo_files($clone), $expect, "$what: and gives what the agent left");
}

# ---- every kind ----

my $repo = project('kinds');
my $task = change('kinds', <<'SH');
sed -i 's/^line 3$/LINE 3/; s/^line 28$/LINE 28/' modify.txt
rm delete.txt
mv rename-me.txt renamed.txt
chmod +x tool.sh
printf '\000\001\002new binary\377' > image.bin
head -c 3000 /dev/zero > new.bin
ln -s link-target a-link
rm becomes-link; ln -s elsewhere becomes-link
mkdir -p new/sub; printf 'x' > new/sub/untracked; printf 'with spaces\n' > 'a name  with spaces'
printf 'caf\303\251\n' > "caf$(printf '\303\251').txt"
printf 'tab\n' > "tab$(printf '\t')name"
printf 'added without newline' >> no-newline
printf 'latin1 \344\n' > latin1.txt
: > empty
echo secret > debug.log; mkdir build; echo x > build/out
mkdir nested; cd nested; git init -q 2>/dev/null; echo inner > inner.txt
SH
my %left = (%base,
	'renamed.txt' => $base{'rename-me.txt'},
	'image.bin' => "\0\1\2new binary\377",
	'new.bin' => "\0" x 3000,
	'a-link' => '-> link-target',
	'becomes-link' => '-> elsewhere',
	'new/sub/untracked' => 'x',
	'a name  with spaces' => "with spaces\n",
	"caf\303\251.txt" => "caf\303\251\n",
	"tab\tname" => "tab\n",
	'no-newline' => 'no newline at the endadded without newline',
	'latin1.txt' => "latin1 \344\n",
	'empty' => '',
	'nested/inner.txt' => "inner\n");
$left{'modify.txt'} =~ s/^line (3|28)$/LINE $1/mg;
delete @left{qw(delete.txt rename-me.txt)};

my $list = changes_of($task);
like($list, qr/modify modify\.txt/, 'a modified file');
like($list, qr/delete delete\.txt/, 'a deleted file');
like($list, qr/rename rename-me\.txt -> renamed\.txt/, 'a renamed file');
like($list, qr/mode tool\.sh/, 'a mode change');
like($list, qr/modify image\.bin/, 'a changed binary');
like($list, qr/add new\.bin/, 'a new binary');
like($list, qr/add a-link/, 'a new symbolic link');
like($list, qr/modify becomes-link/, 'a file that became a link');
like($list, qr/add new\/sub\/untracked/, 'an untracked file in an untracked directory');
like($list, qr/add nested\/inner\.txt/, 'a file in a repository made inside');
unlike($list, qr/debug\.log|build/, '.gitignore is respected');
unlike($list, qr/\.git\//, 'nothing of .git');
diff_is_exact($task, $repo, \%left, 'every kind');

is_deeply(repo_files($repo), \%base, 'the project is untouched');
like(apply($task), qr/^applied \d+$/, 'everything is applied');
is_deeply(repo_files($repo), \%left, 'the project has what the agent left');
ok(-x "$repo/tool.sh", 'the mode too');
is(git($repo, 'diff', '--cached', '--name-only'), '', 'the index is untouched');

# ---- only new work in the next diff; a later diff replaces an undecided one ----

my $session = task_row($node, $task)->{session_id};
my $next = change('kinds', 'echo again > again.txt', session => $session);
is(changes_of($next), 'add again.txt', 'after apply the diff holds only new work');
my $more = change('kinds', 'echo more >> again.txt', session => $session);
is(changes_of($more), 'add again.txt', 'the next task of the session has both');
is(outcome($next), 'superseded 1', 'and replaces what was undecided');
sql($node, "SELECT boocoder.reject($more)");
is(outcome($more), 'rejected 1', 'reject');
ok(!-e "$repo/again.txt", 'changes nothing in the project');
like(sql_error($node, "SELECT boocoder.apply($more)"), qr/ERROR/, 'what was rejected cannot be applied');

# A task that changes nothing.
my $nothing = change('kinds', 'true');
is(changes_of($nothing), '', 'a task that changed nothing has no changes');
is(sql($node, "SELECT coalesce(boocoder.diff($nothing), '')"), '', 'and an empty diff');

# ---- conflict: nothing touched, the row says where ----

$repo = project('conflict');
$task = change('conflict', q{sed -i 's/^line 15$/agent/' modify.txt; echo new > added.txt; rm delete.txt});
spew("$repo/modify.txt", $base{'modify.txt'} =~ s/^line 15$/person/mr);
git($repo, 'commit', '-q', '-a', '-m', 'A person was faster');
my $before = repo_files($repo);
like(apply($task), qr/conflict/, 'a change that no longer fits is a conflict');
is_deeply(repo_files($repo), $before, 'all or nothing: no file was touched');
like(sql($node, "SELECT error FROM boocoder.pending_changes WHERE task_id = $task AND path = 'modify.txt'"),
	qr/\@\@ -1[0-9],\d+ /, 'the row names the hunk');
is(sql($node, "SELECT count(*) FROM boocoder.pending_changes WHERE task_id = $task AND status = 'applied'"), '0',
	'no row says applied');
# The person resolves it in the project; the same rows can be applied then.
git($repo, 'revert', '--no-edit', 'HEAD');
like(apply($task), qr/^applied 3$/, 'after the conflict is gone the same changes apply');
like(slurp("$repo/modify.txt"), qr/^agent$/m, 'and are there');

# A person's change elsewhere in the same file is kept.
$repo = project('merge');
$task = change('merge', q{sed -i 's/^line 28$/agent/' modify.txt});
spew("$repo/modify.txt", "person\n$base{'modify.txt'}");
git($repo, 'commit', '-q', '-a', '-m', 'Elsewhere');
is(apply($task), 'applied 1', 'a change whose place moved applies');
like(slurp("$repo/modify.txt"), qr/\Aperson\n.*^agent$/ms, 'and keeps the other one');

# ---- a dirty file that the change would overwrite ----

$repo = project('dirty');
$task = change('dirty', q{sed -i 's/^line 3$/agent/' modify.txt; echo new > fresh.txt});
spew("$repo/modify.txt", $base{'modify.txt'} =~ s/^line 25$/unsaved/mr);
$before = repo_files($repo);
like(apply($task), qr/conflict/, 'a file with uncommitted work of a person is a conflict');
is_deeply(repo_files($repo), $before, 'nothing was touched');

$repo = project('untracked');
$task = change('untracked', 'echo agent > fresh.txt');
spew("$repo/fresh.txt", "a person's\n");
like(apply($task), qr/conflict/, 'an untracked file in the way is a conflict');
is(slurp("$repo/fresh.txt"), "a person's\n", 'and stays');

$repo = project('dirty-elsewhere');
$task = change('dirty-elsewhere', 'echo agent >> delete.txt');
spew("$repo/no-newline", 'unsaved');
spew("$repo/scratch.txt", 'unsaved');
is(apply($task), 'applied 1', 'dirty files elsewhere do not matter');
is(slurp("$repo/no-newline"), 'unsaved', 'and stay as they are');

# ---- some of the changes ----

$repo = project('some');
$task = change('some', 'echo 1 > one.txt; echo 2 > two.txt; echo 3 > three.txt');
my $one = sql($node, "SELECT id FROM boocoder.pending_changes WHERE task_id = $task AND path = 'one.txt'");
my $two = sql($node, "SELECT id FROM boocoder.pending_changes WHERE task_id = $task AND path = 'two.txt'");
sql($node, "SELECT boocoder.apply_changes(ARRAY[$one])");
ok(until_true(sub { sql($node, "SELECT status FROM boocoder.pending_changes WHERE id = $one") eq 'applied' }), 'one of three applied');
ok(-e "$repo/one.txt" && !-e "$repo/two.txt", 'only that one');
sql($node, "SELECT boocoder.reject_changes(ARRAY[$two])");
is(outcome($task), 'applied 1, pending 1, rejected 1', 'one applied, one rejected, one still waits');

# apply in a transaction that rolls back has no effect.
sql($node, "BEGIN; SELECT boocoder.apply($task); ROLLBACK");
is(outcome($task), 'applied 1, pending 1, rejected 1', 'a rolled back apply is none');
ok(!-e "$repo/three.txt", 'and changed no file');

# ---- the repository's own programs do not run; its protected places stay ----

$repo = make_repo('hooks', { %base, '.gitattributes' => "*.txt filter=evil diff=evil\n" });
add_project($node, 'hooks', $repo);
my $trap = "$scratch/trap";
for my $hook (qw(post-checkout pre-commit post-commit applypatch-msg pre-applypatch post-applypatch reference-transaction post-index-change))
{
	spew("$repo/.git/hooks/$hook", "#!/bin/sh\ntouch $trap-$hook\n", 0755);
}
git($repo, 'config', 'filter.evil.clean', "touch $trap-clean; cat");
git($repo, 'config', 'filter.evil.smudge', "touch $trap-smudge; cat");
git($repo, 'config', 'core.fsmonitor', "touch $trap-fsmonitor");
git($repo, 'config', 'diff.external', "touch $trap-external");
$task = change('hooks', 'echo agent >> delete.txt; echo "* filter=evil" > .gitattributes');
like(apply($task), qr/^applied \d$/, 'apply in a repository with hooks and filters');
my @sprung = glob "$trap-*";
is_deeply(\@sprung, [], 'none of them ran');

# The agent may not reach the repository by its worktree's .git.
$repo = project('hostile');
my $config = slurp("$repo/.git/config");
$task = change('hostile', <<'SH');
git config core.fsmonitor 'touch /tmp/x' 2>/dev/null
rm -f .git 2>/dev/null; printf 'gitdir: /tmp/elsewhere\n' > .git 2>/dev/null
echo ok > ok.txt
SH
is(slurp("$repo/.git/config"), $config, 'the agent cannot change the configuration of the repository');
is(changes_of($task), 'add ok.txt', 'and a forged .git does not mislead the diff');

# A patch as somebody with rights to the table could write it.
for my $evil (
	[ '../outside.txt', 'up' ], [ '/tmp/boocoder-absolute.txt', 'absolute' ], [ '.git/hooks/post-commit', 'in .git' ],
	[ '.GIT/config', '.git in other letters' ], [ 'dir/../../outside.txt', 'up in the middle' ],
	[ 'sub/.git/config', '.git of a directory inside' ], [ 'git~1/config', 'the short name of .git' ])
{
	my ($path, $what) = @$evil;
	my $diff = "diff --git a/$path b/$path\nnew file mode 100644\n--- /dev/null\n+++ b/$path\n@@ -0,0 +1 @@\n+evil\n";
	my $id = sql($node, "INSERT INTO boocoder.pending_changes (session_id, task_id, worktree_id, agent, path, kind, diff, base_commit)"
		. " SELECT session_id, task_id, worktree_id, agent, " . literal($path) . ", 'add', " . literal($diff)
		. ", base_commit FROM boocoder.pending_changes WHERE task_id = $task LIMIT 1 RETURNING id");
	my $error = sql_error($node, "SELECT boocoder.apply_changes(ARRAY[$id])");
	until_true(sub { sql($node, "SELECT status FROM boocoder.pending_changes WHERE id = $id") ne 'applying' });
	isnt(sql($node, "SELECT status FROM boocoder.pending_changes WHERE id = $id"), 'applied', "a patch that names $path is refused ($what)");
}
is_deeply([ grep { /evil|outside|absolute/ } keys %{ repo_files($repo) } ], [], 'nothing was written inside');
ok(!-e "$scratch/outside.txt" && !-e '/tmp/boocoder-absolute.txt' && !-e "$repo/.git/hooks/post-commit", 'nothing was written there');

# Through a symbolic link out of the project.
$repo = project('symlink');
symlink $scratch, "$repo/out";
git($repo, 'add', 'out');
git($repo, 'commit', '-q', '-m', 'A link out of the project');
$task = change('symlink', 'rm out; mkdir out; echo evil > out/escaped.txt');
my $result = apply($task);
ok(!-e "$scratch/escaped.txt", 'apply never writes through a symbolic link out of the project');

# ---- apply survives a crash in the middle: see the job again ----

$repo = project('crash');
$task = change('crash', 'for i in $(seq 200); do echo $i > f$i.txt; done');
sql($node, "SELECT boocoder.apply($task)");
$node->stop('immediate');
$node->start;
is(outcome($task), 'applied 200', 'after a crash during apply it is carried out');
is(scalar(grep { /^f\d+\.txt$/ } keys %{ repo_files($repo) }), 200, 'every file is there');

ok(none_left($node), 'no agent process is left');
$node->stop('fast');
done_testing();
