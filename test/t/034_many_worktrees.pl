# SPDX-License-Identifier: PostgreSQL
#
# Two hundred worktrees, made, dirtied, applied and squashed, deleted: nothing is lost, and nothing is left.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $n = $ENV{BOOCODER_WORKTREES} // 200;
my $node = new_node('many', conf => "boocoder.max_running = 8\nboocoder.poll_interval = '300ms'\nboocoder.sandbox = off");
my $repo = make_repo('many', { 'a.txt' => "one\n" });
add_project($node, 'demo', $repo);
ok(wait_dispatcher($node), 'the dispatcher is there');
add_shell_agent($node, 'shell');
my $began = time;

# A quarter each: does nothing; is applied and committed in the project; is dirtied by hand; is never decided about.
my @kinds = qw(clean applied dirty undecided);
for my $i (1 .. $n)
{
	my $kind = $kinds[ $i % 4 ];
	my $input = $kind eq 'clean' ? 'true' : "mkdir -p d$i && echo $i > d$i/f && head -c 2000 /dev/urandom > d$i/b";
	sql($node, "INSERT INTO boocoder.tasks (project_id, agent, input, idempotency_key) VALUES (1, 'shell', '$input', '$kind $i')");
}
ok(until_true(sub { sql($node, "SELECT count(*) FROM boocoder.tasks WHERE state = 'completed'") == $n }, 180), "$n tasks have worktrees of their own");
my %of = map { my ($id, $path, $kind) = split /\|/; ($id => { path => $path, kind => $kind }) } split /\n/,
  sql($node, "SELECT w.id, w.path, split_part(t.idempotency_key, ' ', 1) FROM boocoder.worktrees w JOIN boocoder.tasks t ON t.session_id = w.session_id");
is(scalar keys %of, $n, 'as many as there are tasks');

sub tree
{
	my ($path) = @_;
	local $ENV{GIT_INDEX_FILE} = "$scratch/index";
	unlink "$scratch/index";
	git($path, 'add', '-A');
	return git($path, 'write-tree');
}

sql($node, "SELECT boocoder.apply(id) FROM boocoder.tasks WHERE idempotency_key LIKE 'applied %'");
ok(until_true(sub { sql($node, "SELECT count(*) FROM boocoder.pending_changes WHERE status IN ('applying', 'pending') AND task_id IN (SELECT id FROM boocoder.tasks WHERE idempotency_key LIKE 'applied %')") == 0 }, 120),
	'a quarter is applied');
is(sql($node, "SELECT count(*) FROM boocoder.pending_changes WHERE status = 'conflict'"), 0, 'without a conflict');
git($repo, 'add', '-A');
git($repo, qw(-c user.name=t -c user.email=t@example.org commit -q -m squashed));
for my $id (keys %of)
{
	my $w = $of{$id};
	spew("$w->{path}/by-hand-$id", "$id\n") if $w->{kind} eq 'dirty';
	$w->{tree} = tree($w->{path});
}

# What would be missed is refused, however it is asked for; then all of them go by force.
sql($node, "SELECT boocoder.reject_changes(array_agg(c.id)) FROM boocoder.pending_changes c JOIN boocoder.tasks t ON t.id = c.task_id"
	  . " WHERE t.idempotency_key LIKE 'dirty %' AND c.status = 'pending'");
my ($gone, $refused) = (0, 0);
for my $id (keys %of)
{
	my (undef, undef, $error) = $node->psql('postgres', "SELECT boocoder.remove_worktree($id)");
	if ($error) { $refused++ } else { $gone++ }
}
is($refused, $n / 4, 'undecided ones are refused at once');
ok(until_true(sub { sql($node, "SELECT count(*) FROM boocoder.worktrees WHERE status IN ('trashed', 'removing')") == 0 }, 240), 'the others are looked at');
is(sql($node, "SELECT count(*) FROM boocoder.worktrees WHERE status = 'removed'"), $n / 2, 'those that hold nothing of their own go');
is(sql($node, "SELECT count(*) FROM boocoder.worktrees WHERE status = 'active' AND request_error LIKE 'worktree_at_risk%'"), $n / 4, 'those that were dirtied by hand stay');
sql($node, "SELECT boocoder.remove_worktree(id, true) FROM boocoder.worktrees WHERE status = 'active'");
ok(until_true(sub { sql($node, "SELECT count(*) FROM boocoder.worktrees WHERE status = 'removed'") == $n }, 240), 'by force all of them go');

# Nothing is lost, and nothing is left.
my ($lost, $archived) = (0, 0);
for my $row (split /\n/, sql($node, "SELECT id, coalesce(archived_ref, '') FROM boocoder.worktrees"))
{
	my ($id, $ref) = split /\|/, $row, 2;
	my $w = $of{$id};
	next if $w->{kind} eq 'clean';
	if ($ref) { $archived++; $lost++ if git($repo, 'rev-parse', "$ref^{tree}") ne $w->{tree} }
	elsif ($w->{kind} ne 'applied') { $lost++ }
}
is($lost, 0, 'no tree is lost');
is(scalar(grep { !-e "$repo/d$_/f" } grep { $kinds[ $_ % 4 ] eq 'applied' } 1 .. $n), 0, 'what was applied is in the project');
is(scalar(grep { -e $_->{path} } values %of), 0, 'no directory is left');
is(git($repo, 'worktree', 'list', '--porcelain') =~ s/^worktree //gmr =~ tr/\n// > 4 ? 'more' : 'one', 'one', 'no entry in the repository');
is(git($repo, 'for-each-ref', '--format=%(refname)', 'refs/heads/boocoder', 'refs/boocoder/snapshots', 'refs/boocoder/turns', 'refs/boocoder/base'), '',
	'no branch, no snapshot');
is(git($repo, qw(status --porcelain)), '', 'and the project is as it was');
my @homes = glob(worktree_root($node) . '/*/homes/s*');
is(scalar @homes, 0, 'no home of agents is left');
git($repo, qw(fsck --no-dangling));
note "$n worktrees, $archived archived, $lost lost, ", sprintf('%.0f s', time - $began);

$node->stop;
done_testing();
