# SPDX-License-Identifier: PostgreSQL
#
# What an agent may leave in its worktree: whatever it is, the task ends with its changes or with a reason, the session goes
# on, and a forced removal gets rid of it.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use Test::More;
use Time::HiRes qw(time);

my $node = new_node('hostile', conf => "boocoder.poll_interval = '300ms'");
my $repo = make_repo('hostile', { 'hello.txt' => "hello\n", 'dir/file' => "deep\n", 'dir/other' => "other\n" });
my $library = make_repo('library', { 'l.txt' => "l\n" });
git($repo, '-c', 'protocol.file.allow=always', 'submodule', '-q', 'add', $library, 'sub');
git($repo, 'commit', '-q', '-m', 'A submodule');
add_project($node, 'demo', $repo);
ok(wait_dispatcher($node), 'the dispatcher is there');
add_shell_agent($node, 'shell');
spew("$scratch/secret", "secret\n", 0600);

sub task_in
{
	my ($session, $input) = @_;
	return sql($node, "INSERT INTO boocoder.tasks (project_id, session_id, agent, input) VALUES (1, $session, 'shell', "
		  . literal($input) . ') RETURNING id');
}

sub changes
{
	return sql($node, "SELECT coalesce(string_agg(path, ' ' ORDER BY path COLLATE \"C\"), '') FROM boocoder.list_pending($_[0])");
}

sub worktree { return sql_row($node, "SELECT * FROM boocoder.worktrees WHERE id = $_[0]") }

# left(NAME, SCRIPT, EXPECT): a task with that script, a second one, and a forced removal.  EXPECT: the changes, as text or
# number; "!reason" of a failure.
sub left
{
	my ($name, $script, $expect) = @_;
	my $session = sql($node, 'INSERT INTO boocoder.sessions (project_id) VALUES (1) RETURNING id');
	my $failed = $expect =~ s/^!//;
	my $began = time;
	my $task = task_in($session, $script);

	settles($node, $task, $failed ? 'failed' : 'completed', "$name: " . ($failed ? 'fails' : 'completed'), 60);
	if ($failed) { is(task_row($node, $task)->{failure_reason}, $expect, "$name: for a reason") }
	elsif ($expect =~ /^\d+$/) { is(sql($node, "SELECT count(*) FROM boocoder.list_pending($session)"), $expect, "$name: its changes") }
	else { is(changes($session), $expect, "$name: its changes") }
	if (!$failed)
	{
		my $next = task_in($session, 'cat dir/file; echo next > next.txt');
		settles($node, $next, 'completed', "$name: the session goes on", 60);
		like(sql($node, "SELECT string_agg(path, ' ') FROM boocoder.list_pending($session)"), qr/next\.txt/, "$name: with the next change");
	}
	my $w = sql_row($node, "SELECT id, path FROM boocoder.worktrees WHERE session_id = $session ORDER BY id DESC LIMIT 1");
	sql($node, "SELECT boocoder.remove_worktree($w->{id}, true)");
	ok(until_true(sub { worktree($w->{id})->{status} eq 'removed' }, 60), "$name: removed by force")
	  or diag(json->encode(worktree($w->{id})));
	ok(!-e $w->{path}, "$name: and gone");
	diag(sprintf '%s: %.1f s', $name, time - $began);
	return worktree($w->{id})->{archived_ref};
}

# ---- modes ----

my $archive = left('a locked file', 'echo x > y; chmod 000 hello.txt', 'y');
is(git($repo, 'show', "$archive:hello.txt"), 'hello', 'with all of it in the archive');
left('a locked worktree', 'echo x > y; chmod 000 .', 'y');
left('directories without rights', 'echo x > dir/y; mkdir d; echo x > d/x; chmod 555 d; chmod 000 dir; chmod 400 .', 'd/x dir/y');
left('a locked .git', 'chmod 000 .git; echo x > y', 'y');

# ---- a submodule ----

my $session = sql($node, 'INSERT INTO boocoder.sessions (project_id) VALUES (1) RETURNING id');
my $task = task_in($session, 'echo in > sub/insub.txt; echo a >> hello.txt');
settles($node, $task, 'completed', 'a file in a submodule');
is(changes($session), 'hello.txt', 'is no change that could be applied');
my $worktree = sql($node, "SELECT id FROM boocoder.worktrees WHERE session_id = $session");
sql($node, "SELECT boocoder.wait_worktree($worktree, '20s')");
my $risk = json->decode(sql($node, "SELECT boocoder.worktree_risk($worktree)"));
is_deeply($risk->{dirty}, ['sub/insub.txt'], 'but told of');
ok(!$risk->{safe}, 'as something that would be missed');
sql($node, "SELECT boocoder.reject($task)");
like(sql_error($node, "SELECT boocoder.remove_worktree($worktree)"), qr/no task has reported/, 'so that the worktree stays');
sql($node, "SELECT boocoder.remove_worktree($worktree, true)");
ok(until_true(sub { worktree($worktree)->{status} eq 'removed' }), 'unless by force');
is(git($repo, 'show', worktree($worktree)->{archived_ref} . ':sub/insub.txt'), 'in', 'which archives it');

like(sql($node, "SELECT string_agg(payload ->> 'text', '') FROM boocoder.events WHERE task_id = $task AND kind = 'log'"),
	qr/not part of the diff:\nsub: /, 'and who watches the task is told that it is no part of the diff');

# ---- what no tree can hold ----

$session = sql($node, 'INSERT INTO boocoder.sessions (project_id) VALUES (1) RETURNING id');
$task = task_in($session, q{perl -e 'for(1..600){mkdir "d"; chdir "d" or die} open F, ">f"'; echo x > y});
settles($node, $task, 'completed', 'a file that lies too deep');
$worktree = sql($node, "SELECT id FROM boocoder.worktrees WHERE session_id = $session");
like(sql($node, "SELECT string_agg(payload ->> 'text', '') FROM boocoder.events WHERE task_id = $task AND kind = 'log'"),
	qr/nested too deeply/, 'is told of');
sql($node, "SELECT boocoder.reject($task)");
like(sql_error($node, "SELECT boocoder.remove_worktree($worktree)"), qr/no task has reported/, 'and not removed as if it were nothing');
sql($node, "SELECT boocoder.remove_worktree($worktree, true)");
ok(until_true(sub { worktree($worktree)->{status} eq 'removed' }), 'unless by force');

# ---- what is no file, or has an odd name ----

left('a repository inside', 'mkdir n; cd n; git init -q; git -c user.name=x -c user.email=x commit -q --allow-empty -m x; echo n > f', 'n/f');
left('loops', 'ln -s loop loop; ln -s . here; ln -s / top; mkdir d; ln -s .. d/up; ln -s d/up/d/up far', 5);
left('pipes, sockets, devices',
	'mkfifo p; mkfifo .gitignore; rm hello.txt; mkfifo hello.txt; mknod null c 1 3; '
	  . q{perl -MSocket -e 'socket(S,AF_UNIX,SOCK_STREAM,0);bind(S,pack_sockaddr_un("s"))'; echo x > y}, 2);
left('odd names',
	q{echo 1 > "$(printf 'new\nline')"; echo 2 > '"'; echo 3 > "'"; echo 4 > "$(printf '\377\376')"; }
	  . q{echo 5 > "$(printf '%0255d' 0)"; echo 6 > ' '; echo 7 > '-rf'; echo 8 > 'back\\slash'; echo 9 > HELLO.TXT}, 9);
left('a directory that leads outside', "rm -r dir; ln -s $scratch dir; ln -s $scratch/secret s; echo x > y", 5);
is(slurp("$scratch/secret"), "secret\n", 'nothing there was touched');
left('another .git', 'rm -rf .git; mkdir .git; mv .git x; ln -s /tmp .git; echo x > y', 'y');
left('many files', 'mkdir many; cd many; seq 3000 | while read n; do echo $n > f$n; done', 3000);

# ---- size ----

$archive = left('a sparse file', 'echo work > y; truncate -s 10G sparse', '!diff_too_large');
is(git($repo, 'show', "$archive:y"), 'work', 'the rest is in the archive');
like(git($repo, 'log', '-1', '--format=%b', $archive), qr/sparse: too large/, 'which names what is not');
left('a deep tree', q{perl -e 'for(1..3000){mkdir "d"; chdir "d" or die} open F, ">f"'; echo x > y}, 'y');

ok(none_left($node), 'no agent is left');
$node->stop;
done_testing();
