# SPDX-License-Identifier: PostgreSQL
#
# The runner by itself: links that an agent left in places it may write, to show the next agent what it must not see. What
# is mounted is what was meant, or the turn fails with a reason.
#
# BOOCODER_RUNNER names another runner than the one built here.
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Path qw(make_path remove_tree);
use File::Temp qw(tempdir);
use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderRunner;
use JSON::PP ();
use POSIX ();
use Test::More;
use Time::HiRes qw(time);

my $program = BoocoderRunner::program();
plan skip_all => 'there is no runner; set BOOCODER_RUNNER' unless defined $program && -x $program;
chomp(my $bwrap = `sh -c 'command -v bwrap'`);
plan skip_all => 'bubblewrap is not installed' unless $bwrap;

# Not below /tmp: the sandbox has one of its own.
my $scratch = abs_path(tempdir('boocoder-places-XXXXXX', DIR => '/var/tmp', CLEANUP => 1));
my ($root, $data) = ("$scratch/root", "$scratch/data");
my $folder = "$root/worktrees/p1-0123abcd";
my ($worktree, $home, $lasting) = ("$folder/s7", "$root/homes/s7", "$scratch/agents/x");

# ---- orders ----

sub start_over
{
	remove_tree($root, $data, "$scratch/agents");
	make_path($worktree, "$root/homes", $data, "$scratch/agents");
	spew("$data/PG_VERSION", "15\n");
}

sub spew
{
	my ($path, $content) = @_;
	open my $file, '>', $path or die "$path: $!";
	print $file $content;
	close $file;
}

# What lies in the "data directory"
sub data { return join ' ', map { s{.*/}{}r } sort glob "$data/*" }

# turn(SCRIPT, OPTION => VALUE ...): to its end; "lasting" is for an agent with a lasting home.
sub turn
{
	my ($script, %option) = @_;
	my %sandbox = (mode => 'bwrap', ro_paths => [], hide => [$data], home => $home, agent_path => '/usr/local/bin:/usr/bin:/bin',
		network => JSON::PP::true);
	%sandbox = (%sandbox, agent_home => { path => $lasting }, private => [ '.config/goose/permission.yaml', '.codex/rules' ])
	  if delete $option{lasting};
	my $runner = BoocoderRunner->start;
	$runner->order({
		role => 'agent', task_id => 42, transport => 'command', cwd => $worktree, input => 'prompt', env => {}, setup => [],
		command => [ '/bin/sh', '-c', "$script\n#" ], sandbox => \%sandbox,
		limits => { timeout_ms => 20_000, term_grace_ms => 300, cancel_grace_ms => 300, max_line => 1024 * 1024 }, %option });
	$runner->result(20);
	$runner->{result} //= {};
	$runner->gone(2);
	return $runner;
}

sub ends
{
	my ($runner, $outcome, $reason, $name) = @_;
	my $result = $runner->{result};
	is(join(' ', map { $_ // '-' } @$result{qw(outcome reason)}), "$outcome " . ($reason // '-'), $name)
	  or diag(JSON::PP->new->canonical->encode($result));
}

# ---- what the next agent of a session with a lasting home gets ----

start_over();
ends(turn("mkdir -p \$HOME/private/.codex; ln -s $data \$HOME/private/.codex/rules; ln -s $data \$HOME/.codex"), 'completed', undef,
	'an agent leaves links in the home of its session');
my $runner = turn('cd; ls .codex/rules; echo x > .codex/rules/evil; cat .codex/rules/evil; echo x > .config/goose/permission.yaml', lasting => 1);
ends($runner, 'completed', undef, 'another one of the session, with a lasting home');
is($runner->text, "x\n", 'has private parts of its own, and nothing else');
is(data(), 'PG_VERSION', 'nothing was written elsewhere');
$runner = turn('cat $HOME/.codex/rules/* $HOME/.config/goose/permission.yaml', lasting => 1);
is($runner->text, "x\nx\n", 'which are there in the next turn');
ok(!-e "$lasting/.codex/rules/evil" && !-s "$lasting/.config/goose/permission.yaml", 'and not in the lasting home');

# bubblewrap makes the place where it mounts: through a link also outside of the sandbox.
$runner = turn(<<"SH", lasting => 1);
cd
mv -T .config .c && mkdir -p .config/goose && ln -s /oldroot$data/standby.signal .config/goose/permission.yaml
mv -T .config/goose .config/g && mkdir .config/goose && ln -s /oldroot$data/standby.signal .config/goose/permission.yaml
mv -T .codex .d && ln -s /oldroot$data .codex
rm -rf .codex .config
SH
turn('true', lasting => 1);
is(data(), 'PG_VERSION', 'no link in a lasting home makes a file elsewhere');
remove_tree("$lasting/.config");
make_path("$lasting/.config/goose");
symlink "/oldroot$data/standby.signal", "$lasting/.config/goose/permission.yaml" or die $!;
$runner = turn('true', lasting => 1);
ends($runner, 'failed', 'spawn_failed', 'a link that was there before is refused');
like($runner->{result}{message}, qr/permission\.yaml.*symbolic link/, 'and named');
is(data(), 'PG_VERSION', 'nothing was made');

# ---- the worktree ----

for my $case (
	[ 'the worktree', $worktree, 'worktree_missing' ], [ 'its folder', $folder, 'worktree_missing' ],
	[ 'its link to the repository', "$worktree/.git", 'worktree_missing' ], [ 'the home', $home, 'spawn_failed' ])
{
	my ($name, $path, $reason) = @$case;
	start_over();
	rename $path, "$path.bak";
	mkdir "$data/s7";
	symlink $data, $path or die "$path: $!";
	$runner = turn("ls -A $data; cat PG_VERSION; ls .git; echo x > evil");
	ends($runner, 'failed', $reason, "$name is a link");
	like($runner->{result}{message}, qr/symbolic link/, 'which is said');
	is(data(), 'PG_VERSION s7', 'nothing was written behind it');
	unlike($runner->text, qr/PG_VERSION|15/, 'or read');
}

# Swapped all the time, as a server's agents can that have the folder: whichever was found, the link is never followed.
start_over();
spew("$worktree/mine", '');
my $swapper = fork() // die;
if ($swapper == 0)
{
	symlink $data, "$folder/link";
	while (1) { rename $worktree, "$folder/s7.bak"; rename "$folder/link", $worktree; rename $worktree, "$folder/link"; rename "$folder/s7.bak", $worktree }
}
my %seen;
for (1 .. 60)
{
	$runner = turn('ls; echo x > evil');
	$seen{ $runner->{result}{reason} // $runner->{result}{outcome} // 'none' }++;
	last unless data() eq 'PG_VERSION';
	$seen{leak}++ if $runner->text =~ /PG_VERSION/;
}
kill 'KILL', $swapper;
waitpid $swapper, 0;
note(join ', ', map { "$_: $seen{$_}" } sort keys %seen);
is(data(), 'PG_VERSION', 'a worktree that is swapped while agents start: nothing was written elsewhere');
ok(!$seen{leak} && $seen{completed}, 'nor shown, and some of them started');
is(join(' ', grep { !/^(?:completed|worktree_missing|sandbox_unavailable)$/ } sort keys %seen), '', 'the others have a reason');

# ---- where a server runs that has the folder, nothing is mounted over a name in it ----

start_over();
spew("$worktree/.git", "gitdir: elsewhere\n");
$runner = turn('echo x > .git; cat .git');
is($runner->text, "gitdir: elsewhere\n", 'the link to the repository is not the agent\'s to change');
my $server = BoocoderRunner->start;
$server->order({ role => 'server', provider => 'x', cwd => $folder, env => {}, command => [ '/bin/sh', '-c', 'touch up; while :; do sleep 0.2; done' ],
	sandbox => { mode => 'bwrap', ro_paths => [], hide => [], home => "$root/homes/p1", agent_path => '/usr/bin:/bin', network => JSON::PP::true },
	limits => { handshake_ms => 60_000, term_grace_ms => 100 } });
my $end = time() + 10;
select undef, undef, undef, 0.01 until -e "$folder/up" || time() > $end;
$runner = turn('echo x > .git; cat .git');
is($runner->text, "x\n", 'but what a server could change as well is not protected');
$server->stop;
$runner = turn('echo y > .git; cat .git');
is($runner->text, "x\n", 'until the server has ended');

# ---- what is above the root is the administrator's ----

start_over();
rename $root, "$scratch/real" or die $!;
symlink "$scratch/real", $root or die $!;
ends(turn('echo x > new; echo x > $HOME/new'), 'completed', undef, 'a worktree root that is a link');
ok(-e "$scratch/real/worktrees/p1-0123abcd/s7/new", 'is the one meant');

done_testing();
