# SPDX-License-Identifier: PostgreSQL
#
# Runners whose dispatcher is killed, where process 1 adopts them: as a postmaster does in a container, for which a process
# that a signal ended is a crash of the server. Each ends by itself, with status 0, and leaves nothing to be adopted.
#
# BOOCODER_RUNNER names another runner than the one built here.
use strict;
use warnings;

use Cwd qw(abs_path);
use Fcntl qw(:flock);
use File::Temp qw(tempdir);
use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderRunner;
use JSON::PP ();
use POSIX qw(WNOHANG);
use Test::More;
use Time::HiRes qw(time usleep);

my $program = BoocoderRunner::program();
plan skip_all => 'there is no runner; set BOOCODER_RUNNER' unless defined $program && -x $program;
chomp(my $bwrap = `sh -c 'command -v bwrap'`);
plan skip_all => 'bubblewrap is not installed' unless $bwrap;

# ---- what a runner is at when its dispatcher goes ----

my $place = $ENV{BC_ORPHANS_PLACE};
my $fake_acp = abs_path("$FindBin::RealBin/../agents/fake-acp");
my $litter = 'trap "" TERM HUP INT; setsid sh -c "trap \"\" TERM HUP INT; while :; do sleep 0.2; done" & echo up; while :; do sleep 0.2; done';

sub order
{
	my ($mode, %option) = @_;
	return {
		role => 'agent', task_id => 42, transport => 'command', cwd => "$place/worktree", input => 'prompt', env => {}, setup => [],
		setup_timeout_ms => 60_000, permission_policy => 'allow', command => [ '/bin/sh', '-c', "$litter\n#" ],
		sandbox => { mode => $mode, ro_paths => [ "$place/bin", "$FindBin::RealBin/../agents", $fake_acp ], hide => [], home => "$place/home",
			agent_path => "$place/bin:/usr/local/bin:/usr/bin:/bin", network => JSON::PP::true },
		limits => { handshake_ms => 20_000, term_grace_ms => 300, cancel_grace_ms => 300, max_line => 1024 * 1024, deadline_ms => 20_000 }, %option };
}

sub up { my ($runner) = @_; return $runner->follow(sub { $runner->text =~ /up/ }, 10) }

# Until a file is there that what was started makes
sub marked
{
	my $end = time() + 10;
	usleep(5_000) until -e "$place/home/up" || -e "$place/worktree/up" || -e "$place/up" || time() > $end;
	return 1;
}

my $hangs = 'touch "$HOME/up" up 2> /dev/null; trap "" TERM; while :; do sleep 0.2; done';
my %states = (
	'nothing yet' => sub { 1 },
	'half an order' => sub { $_[0]->write_raw("\0\0\0") },
	(map { my $mode = $_; (
		"an agent, $mode" => sub { $_[0]->order(order($mode)); up($_[0]) },
		"a setup command, $mode" => sub { $_[0]->order(order($mode, setup => [$hangs])); marked() },
		"a kept agent, $mode" => sub {
			$_[0]->order(order($mode, transport => 'acp', command => [$fake_acp], warm => JSON::PP::true, input => 'text up'));
			$_[0]->result(10);
			return $_[0]->{kept} },
		"a probe, $mode" => sub { $_[0]->order(order($mode, role => 'probe', program => 'hangs', command => ['hangs'], version_args => ['-v'], provider => 'x')); marked() },
		"a server, $mode" => sub { $_[0]->order(order($mode, role => 'server', command => ['hangs'])); marked() }) } qw(bwrap off)),
	# bubblewrap is a script that hangs, there.
	'a check' => sub { $_[0]->order({ %{ order('bwrap') }, role => 'check', root => "$place/worktree", forbidden => [] }); marked() },
	# The lock that it waits for is ours.
	'a git role' => sub {
		$_[0]->order({ role => 'worktree', root => "$place/root", project => { id => 1, path => "$place/project" },
			worktree => { id => 1, path => "$place/root/worktrees/s1", branch => 'b' } });
		my $end = time() + 10;
		usleep(5_000) until (do { open my $f, '<', "/proc/$_[0]->{pid}/wchan"; $f && <$f> // '' }) =~ /lock/ || time() > $end;
		return 1 },
);

# ---- process 1 ----

if (my $state = $ENV{BC_ORPHANS_STATE})
{
	open my $lock, '<', "$place/project/.git" or die $!;
	flock $lock, LOCK_EX or die $!;
	pipe(my $from, my $to) or die;
	my $dispatcher = fork() // die;
	if ($dispatcher == 0)
	{
		close $lock;
		my $runner = BoocoderRunner->start;
		syswrite $to, ($states{$state}->($runner) ? $runner->{pid} : 0) . "\n";
		sleep 60;
		POSIX::_exit(0);
	}
	close $to;
	chomp(my $pid = <$from> // 0);
	my $killed = time();
	kill 'KILL', $ENV{BC_ORPHANS_KILL} ? $pid : $dispatcher;
	while (time() < $killed + 4)
	{
		my $ended = waitpid -1, WNOHANG;
		last if $ended < 0;
		print $ended == $pid ? 'runner' : 'other', " $?\n" if $ended > 0 && $ended != $dispatcher;
		usleep(2_000);
		last if $ENV{BC_ORPHANS_KILL} && time() > $killed + 2;
	}
	printf "took %.2f\n", time() - $killed;
	kill 'KILL', $dispatcher;
	POSIX::_exit(0);
}

# ---- the test ----

$place = abs_path(tempdir('boocoder-orphans-XXXXXX', DIR => '/var/tmp', CLEANUP => 1));
mkdir "$place/$_" for qw(bin worktree project project/.git);
for my $name (qw(hangs bwrap))
{
	open my $file, '>', "$place/bin/$name" or die $!;
	print $file "#!/bin/sh\n", $name eq 'bwrap' ? "touch $place/up\nwhile :; do sleep 0.2; done\n" : "$hangs\n";
	close $file;
	chmod 0755, "$place/bin/$name";
}
mkdir "$place/home";
system('git', 'init', '-q', "$place/project") == 0 or die;
system("cd $place/project && git -c user.name=a -c user.email=b commit -q --allow-empty -m First") == 0 or die;

my @outer = ($bwrap, '--bind', '/', '/', '--dev-bind', '/dev', '/dev', '--unshare-pid', '--as-pid-1', '--proc', '/proc');
plan skip_all => 'there can be no PID namespace here' if system("@outer -- true 2>/dev/null") != 0;

sub orphans
{
	my ($state, %env) = @_;
	local %ENV = (%ENV, BC_ORPHANS_PLACE => $place, BC_ORPHANS_STATE => $state, %env);
	unlink "$place/up", "$place/home/up", "$place/worktree/up";
	open my $inside, '-|', @outer, ($state eq 'a check' ? ('--ro-bind', "$place/bin/bwrap", $bwrap) : ()), '--', $^X, __FILE__ or die $!;
	local $/;
	return <$inside>;
}

for my $state (sort keys %states)
{
	my $seen = orphans($state);
	my ($took) = $seen =~ s/took (.*)\n// ? $1 : 99;
	is($seen, "runner 0\n", "$state: the runner ends by itself, and nothing else is adopted");
	cmp_ok($took, '<', 2, "$state: within two seconds");
}

# A runner that is killed itself: the guard ends as quietly.
like(orphans('an agent, off', BC_ORPHANS_KILL => 1), qr/\A(?:other 0\n)+took/, 'the guard of a runner that is killed');

done_testing();
