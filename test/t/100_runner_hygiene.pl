# SPDX-License-Identifier: PostgreSQL
#
# The runner by itself, without a server: this test is its dispatcher and speaks frames. What an agent gets and does not
# get, what is left of it whoever is killed, and that whatever it does there is an outcome and a bound on memory.
#
# BOOCODER_RUNNER names another runner than the one built here.
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Temp qw(tempdir);
use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderRunner;
use JSON::PP ();
use POSIX ();
use Test::More;
use Time::HiRes qw(time usleep);

my $program = BoocoderRunner::program();
plan skip_all => 'there is no runner; set BOOCODER_RUNNER' unless defined $program && -x $program;
chomp(my $bwrap = `sh -c 'command -v bwrap'`);
plan skip_all => 'bubblewrap is not installed' unless $bwrap;

# Not below /tmp: the sandbox has one of its own.
my $scratch = abs_path(tempdir('boocoder-runner-XXXXXX', DIR => '/var/tmp', CLEANUP => 1));
my $place = "$scratch/project";
my $worktree = "$place/worktree";
mkdir $_ for $place, $worktree;
my $perl = '/usr/bin/perl';
my $fake_acp = abs_path("$FindBin::RealBin/../agents/fake-acp");

# ---- orders ----

# order(OPTION => VALUE ...): an order for an agent; "sandbox" and "limits" are added to the defaults.
sub order
{
	my (%option) = @_;
	my %sandbox = %{ delete $option{sandbox} // {} };
	my %limits = %{ delete $option{limits} // {} };

	return {
		role => 'agent', task_id => 42, transport => 'command', cwd => $worktree, input => 'the prompt',
		env => {}, setup => [], setup_timeout_ms => 10_000, permission_policy => 'allow',
		sandbox => {
			mode => 'bwrap', ro_paths => [], hide => [], home => "$place/home",
			agent_path => '/usr/local/bin:/usr/bin:/bin', network => JSON::PP::true, %sandbox
		},
		limits => {
			timeout_ms => 0, inactivity_ms => 0, handshake_ms => 10_000, cancel_grace_ms => 300, term_grace_ms => 300,
			max_line => 1024 * 1024, %limits
		},
		%option,
	};
}

sub begin
{
	my (%option) = @_;
	my $runner = BoocoderRunner->start;
	$runner->order(order(%option));
	return $runner;
}

# To the end of the turn; the runner, with {result}.
sub turn
{
	my (%option) = @_;
	my $seconds = delete $option{seconds} // 20;
	my $began = time();
	my $runner = begin(%option);
	$runner->result($seconds);
	$runner->{took} = time() - $began;
	$runner->{result} //= {};
	return $runner;
}

sub perl { return [ $perl, '-e', @_ ] }
sub sh { return [ '/bin/sh', '-c', "$_[0]\n#", @_[ 1 .. $#_ ] ] }

# ends(RUNNER, OUTCOME, REASON, NAME): how the turn ended, and that the runner ended by itself after it
sub ends
{
	my ($runner, $outcome, $reason, $name) = @_;
	my $result = $runner->{result} // {};
	my $is = join ' ', map { $_ // '-' } @$result{qw(ok outcome reason)};
	my $want = join ' ', 1, $outcome, $reason // '-';

	is($is, $want, "$name: $outcome" . ($reason ? ", $reason" : ''))
	  or diag(JSON::PP->new->canonical->pretty->encode({ map { $_ => substr $result->{$_} // '-', 0, 500 } keys %$result }));
	is($runner->gone(2), 0, "$name: the runner has ended");
}

# ---- processes ----

sub pids
{
	opendir my $dir, '/proc' or die "/proc: $!";
	return grep { /^\d+$/ } readdir $dir;
}

sub command_line
{
	my ($pid) = @_;
	open my $file, '<:raw', "/proc/$pid/cmdline" or return '';
	local $/;
	return <$file> // '';
}

# Pids whose command line has the marker, but for this test's own.
sub marked
{
	my ($marker) = @_;
	return grep { $_ != $$ && index(command_line($_), $marker) >= 0 } pids();
}

sub until_true
{
	my ($code, $seconds) = @_;
	my $end = time() + $seconds;
	my $value;

	usleep(10_000) until ($value = $code->()) || time() > $end;
	return $value;
}

sub none_left
{
	my ($marker, $name) = @_;
	my $clean = until_true(sub { !marked($marker) }, 2);

	ok($clean, "$name: no process is left after 2 s");
	return if $clean;
	my @left = marked($marker);
	diag(`ps -o pid,ppid,sid,stat,args -p @{[join ',', @left]}`);
	kill 'KILL', @left;
}

sub parent_of
{
	my ($pid) = @_;
	open my $file, '<', "/proc/$pid/stat" or return 0;
	return (<$file> // '') =~ /\) \S (\d+)/ ? $1 : 0;
}

sub child_of
{
	my ($parent) = @_;
	return grep { parent_of($_) == $parent } pids();
}

# Leaves the worst behind, all of it deaf to signals: a child in a session of its own, one that forked twice, one
# without environment and descriptors. The marker is on every command line.
my $litter = <<'PERL';
use POSIX ();
my $marker = shift;
$SIG{$_} = 'IGNORE' for qw(TERM INT HUP QUIT);
my $deaf = q{$SIG{$_} = "IGNORE" for qw(TERM INT HUP QUIT); select undef, undef, undef, 0.2 while 1};
if (!fork) { POSIX::setsid(); exec $^X, '-e', $deaf, "$marker-setsid" }
if (!fork) { POSIX::setsid(); if (!fork) { POSIX::setsid(); exec $^X, '-e', $deaf, "$marker-twice" } POSIX::_exit(0) }
if (!fork) { POSIX::setsid(); POSIX::close($_) for 0 .. 9; %ENV = (); exec $^X, '-e', $deaf, "$marker-bare" }
$| = 1;
# There when its program runs: the signals are ignored by then.
my $there = sub {
	my %seen;
	for my $file (glob '/proc/[0-9]*/cmdline') {
		open my $f, '<', $file or next;
		$seen{$1} = 1 if (<$f> // '') =~ /\0\Q$marker\E-(\w+)\0/;
	}
	return keys %seen == 3;
};
select undef, undef, undef, 0.01 until $there->();
print "up\n";
PERL
my $forever = $litter . 'select undef, undef, undef, 0.2 while 1;';
my $marks = 0;

sub new_marker { return "boocoder-runner-test-$$-" . ++$marks }

# A runner whose agent and litter are there.
sub littering
{
	my ($marker, %option) = @_;
	my $runner = begin(command => perl($forever, $marker), %option);
	ok($runner->follow(sub { $runner->text =~ /up/ }, 10), "$marker: the agent is up")
	  or diag(explain($runner->{result}));
	return $runner;
}

# ---- what an agent has ----

my $report = <<'PERL';
use JSON::PP;
opendir my $d, '/proc/self/fd'; my @fds = readdir $d;
my %status = map { /^(\w+):\s+(.*)$/ ? ($1 => $2) : () } do { open my $f, '<', '/proc/self/status'; <$f> };
open my $f, '<', '/proc/self/oom_score_adj'; chomp(my $oom = <$f>);
open $f, '<', '/proc/self/limits'; my ($core) = map { /^Max core file size\s+(\S+)\s+(\S+)/ ? "$1 $2" : () } <$f>;
my $umask = sprintf '%03o', umask;
my $stdin = do { local $/; <STDIN> };
print JSON::PP->new->canonical->encode({
	fds => [ sort grep { /^\d+$/ && $_ != fileno $d } @fds ], env => {%ENV}, status => \%status, oom => $oom, core => $core,
	umask => $umask, stdin => $stdin, args => [@ARGV], cwd => do { chomp(my $p = `pwd`); $p },
	session => (split ' ', do { open my $s, '<', '/proc/self/stat'; <$s> =~ s/.*\) //r })[3], pid => $$ });
PERL

for my $mode (qw(bwrap off))
{
	# Descriptors, a mask, ignored signals and an environment that must not get through.
	pipe(my $leak_read, my $leak_write) or die;
	my $runner = BoocoderRunner->start(prepare => sub {
		POSIX::dup2(fileno $leak_read, $_) for 10 .. 40;
		$ENV{PGDATA} = '/secret';
		$SIG{$_} = 'IGNORE' for qw(HUP INT USR1);
		POSIX::sigprocmask(POSIX::SIG_BLOCK(), POSIX::SigSet->new(POSIX::SIGTERM(), POSIX::SIGUSR2()));
	});
	my $hello = $runner->{hello};
	is($hello->{version}, 1, "$mode: HELLO says version 1");
	is($hello->{pid}, $runner->{pid}, "$mode: HELLO says its pid");
	my @fds = do { opendir my $d, "/proc/$runner->{pid}/fd"; grep { /^\d+$/ } readdir $d };
	is(join(' ', sort @fds), '0 1 2', "$mode: a waiting runner has three descriptors");
	is(readlink "/proc/$runner->{pid}/cwd", '/', "$mode: and keeps no directory busy");

	$runner->order(order(command => perl($report), sandbox => { mode => $mode }, env => { CUSTOM => 'yes', LANG => 'C' }));
	$runner->result(10);
	ends($runner, 'completed', undef, "$mode: a report");
	my $seen = eval { JSON::PP->new->decode($runner->text) } // {};
	is("@{ $seen->{fds} // [] }", '0 1 2', "$mode: descriptors");
	my %env = %{ $seen->{env} // {} };
	my $user = getpwuid $>;
	delete $env{PWD};    # bwrap sets it with --chdir
	is_deeply(\%env, {
		PATH => '/usr/local/bin:/usr/bin:/bin', HOME => "$place/home", USER => $user, LOGNAME => $user, SHELL => '/bin/sh',
		LANG => 'C', TERM => 'dumb', TMPDIR => '/tmp', BOOCODER_TASK_ID => 42, BOOCODER_WORKTREE => $worktree,
		CUSTOM => 'yes' }, "$mode: environment");
	is(hex($seen->{status}{SigBlk}), 0, "$mode: no signal is blocked");
	# But what Perl itself ignores, and what belongs to the C library
	my %own = map { $_ => 1 } POSIX::SIGFPE(), 32, 33;
	my @ignored = grep { !$own{$_} && hex($seen->{status}{SigIgn}) >> $_ - 1 & 1 } 1 .. 63;
	is("@ignored", '', "$mode: no signal is ignored");
	is($seen->{oom}, 800, "$mode: oom_score_adj");
	is($seen->{core}, '0 0', "$mode: no core dumps");
	is($seen->{umask}, '022', "$mode: umask");
	is($seen->{stdin}, 'the prompt', "$mode: the prompt is on its standard input");
	is_deeply($seen->{args}, ['the prompt'], "$mode: and its last argument");
	is($seen->{cwd}, $worktree, "$mode: it is in its worktree");
	cmp_ok($seen->{session}, '==', $seen->{pid}, "$mode: it leads a session") if $mode eq 'off';
	is($seen->{status}{NoNewPrivs}, 1, "$mode: no new privileges") if $mode eq 'bwrap';
	is(hex($seen->{status}{CapEff}), 0, "$mode: no capabilities") if $mode eq 'bwrap';
	is((stat "$place/home")[2] & 07777, 0700, "$mode: its home is closed to others");
}

# ---- nothing is left, whoever ends ----

for my $mode (qw(bwrap off))
{
	my @sandbox = (sandbox => { mode => $mode });
	my $marker = new_marker();
	my $runner = turn(command => perl($litter, $marker), @sandbox);
	ends($runner, 'completed', undef, "$mode, an agent that leaves processes behind");
	none_left($marker, "$mode, normal end");

	$runner = turn(command => perl($litter . 'kill 9, $$', $marker = new_marker()), @sandbox);
	ends($runner, 'failed', 'killed_by_signal', "$mode, an agent that kills itself");
	is($runner->{result}{signal}, 9, "$mode: with its signal");
	none_left($marker, "$mode, suicide");

	$runner = littering($marker = new_marker(), @sandbox);
	my $asked = time();
	$runner->cancel;
	$runner->result(10);
	ends($runner, 'cancelled', 'cancelled', "$mode, cancel of an agent that ignores SIGTERM");
	cmp_ok(time() - $asked, '<', 2.5, "$mode: within its grace");
	none_left($marker, "$mode, cancel");

	$runner = turn(command => perl($forever, $marker = new_marker()), @sandbox, limits => { timeout_ms => 700 });
	ends($runner, 'failed', 'timeout', "$mode, an agent that takes too long");
	none_left($marker, "$mode, timeout");

	# The child of the runner: bubblewrap, or the guard.
	$runner = littering($marker = new_marker(), @sandbox);
	my ($between) = child_of($runner->{pid});
	kill 'KILL', $between;
	$runner->result(10);
	ends($runner, 'failed', 'killed_by_signal', "$mode, kill -9 of " . ($mode eq 'off' ? 'the guard' : 'bwrap'));
	none_left($marker, "$mode, kill -9 of " . ($mode eq 'off' ? 'the guard' : 'bwrap'));

	# The agent itself: what has the marker as an argument, not as a part of one, and is not bwrap.
	$runner = littering($marker = new_marker(), @sandbox);
	my ($agent) = grep { command_line($_) =~ /\A\Q$perl\E\0.*\0\Q$marker\E\0/s } marked($marker);
	ok($agent, "$mode: the agent is found");
	kill 'KILL', $agent;
	$runner->result(10);
	ends($runner, 'failed', 'killed_by_signal', "$mode, kill -9 of the agent");
	none_left($marker, "$mode, kill -9 of the agent");

	$runner = littering($marker = new_marker(), @sandbox);
	kill 'KILL', $runner->{pid};
	is($runner->gone(2), 9, "$mode: the runner is killed");
	none_left($marker, "$mode, kill -9 of the runner");

	$runner = littering($marker = new_marker(), @sandbox);
	my $closed = time();
	$runner->hang_up;
	ok(defined $runner->gone(5), "$mode: a runner without its pipe ends");
	cmp_ok(time() - $closed, '<', 1, "$mode: within a second");
	none_left($marker, "$mode, end of the pipe");

	# A dispatcher that is killed: a process of ours in between, which has the other end of the pipe.
	pipe(my $from, my $to) or die;
	my $dispatcher = fork() // die;
	if ($dispatcher == 0)
	{
		my $mine = begin(command => perl($forever, $marker = "$marker-orphan"), @sandbox);
		$mine->follow(sub { $mine->text =~ /up/ }, 10);
		syswrite $to, "$mine->{pid}\n";
		sleep 60;
		POSIX::_exit(0);
	}
	close $to;
	chomp(my $orphan = <$from> // 0);
	ok($orphan, "$mode: an agent of another dispatcher is up");
	kill 'KILL', $dispatcher;
	waitpid $dispatcher, 0;
	none_left("$marker-orphan", "$mode, kill -9 of the dispatcher");
	ok(until_true(sub { !kill 0, $orphan }, 2), "$mode: nor the runner");

	# In a setup command
	$runner = begin(command => perl('print "not reached"'), setup => ["$perl -e '" . ($forever =~ s/'/'\\''/gr) . "' " . ($marker = new_marker())],
		@sandbox);
	ok($runner->follow(sub { grep { $_->{kind} eq 'log' && $_->{payload}{text} =~ /up/ } @{ $runner->{events} } }, 10), "$mode: a setup command is up");
	$runner->hang_up;
	none_left($marker, "$mode, end of the pipe during setup");

	# Broken frames are the end of the pipe.
	$runner = littering($marker = new_marker(), @sandbox);
	$runner->write_raw("\xff" x 64);
	ok(defined $runner->gone(3), "$mode: a runner that gets garbage ends");
	none_left($marker, "$mode, garbage");

	# Whoever holds stdout open does not hold up the turn.
	$runner = turn(command => perl('if (!fork) { setpgrp; $0 = shift; sleep 60 } print "bye\n"', $marker = new_marker()), @sandbox);
	ends($runner, 'completed', undef, "$mode, a grandchild that holds stdout");
	cmp_ok($runner->{took}, '<', 2, "$mode: the turn ends at once");
	is($runner->text, "bye\n", "$mode: with all it said");
	none_left($marker, "$mode, grandchild with stdout");

	# Zombies of the agent's orphans do not pile up.
	$runner = begin(command => [ $perl, '-MPOSIX', '-e', '$| = 1; for (1 .. 200) { if (!fork) { fork; POSIX::_exit(0) } wait } print "done\n"; sleep 60' ], @sandbox);
	ok($runner->follow(sub { $runner->text =~ /done/ }, 10), "$mode: an agent with many orphans is up");
	my ($keeper) = child_of($runner->{pid});
	ok(until_true(sub { 5 > scalar child_of($keeper) }, 2), "$mode: they are reaped while it runs");
	$runner->stop;

	# A process that lost its first thread looks like a zombie.
	# A chain of processes that fork and end at once outruns a walk through /proc.
	SKIP:
	{
		my $cc = "$scratch/evade";
		open my $source, '>', "$cc.c" or die;
		print $source <<'C';
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
static void *linger(void *arg) { (void) arg; sleep(20); _exit(0); }
int main(int argc, char **argv)
{
	pthread_t thread;
	time_t end = time(NULL) + 20;
	if (fork() > 0) { usleep(300000); return 0; }
	setsid(); close(0); close(1); close(2);
	if (argc > 1 && strcmp(argv[1], "leader") == 0) { pthread_create(&thread, NULL, linger, NULL); pthread_exit(NULL); }
	for (unsigned n = 0; time(NULL) < end; n++)
	{
		/* A sign of life, for the processes are too short-lived to be seen. */
		if (n % 50 == 0) { FILE *f = fopen("alive", "a"); fputc('x', f); fclose(f); }
		if (fork() > 0) _exit(0);
	}
	return 0;
}
C
		close $source;
		skip 'no C compiler', 4 if system("cc -O1 -pthread -o $cc $cc.c 2>/dev/null") != 0;
		rename $cc, "$worktree/evade";
		$runner = turn(command => [ "$worktree/evade", 'leader' ], @sandbox);
		ends($runner, 'completed', undef, "$mode, a process without its first thread");
		is(scalar(grep { open my $name, "<", "/proc/$_/comm"; $name && <$name> eq "evade\n" } pids()), 0,
			"$mode: is killed, too");
		$runner = turn(command => ["$worktree/evade"], @sandbox);
		ends($runner, 'completed', undef, "$mode, a chain of processes");
		my $size = -s "$worktree/alive";
		ok($size, "$mode: it was there");
		ok(!until_true(sub { -s "$worktree/alive" > $size }, 0.5), "$mode: and is not any more");
	}
}

# ---- before there is an agent ----

for my $case ([ 'nothing', '' ], [ 'half a header', "\0\0" ], [ 'half an order', substr(BoocoderRunner::frame(1, 1, '{"role":"check"}'), 0, 20) ])
{
	my $runner = BoocoderRunner->start;
	$runner->write_raw($case->[1]);
	$runner->hang_up;
	is($runner->gone(1), 0, "a runner that gets $case->[0] ends when the pipe does");
}
for my $case ([ 'no JSON', '{"role":' ], [ 'a NUL', "{\"role\":\"ch\0eck\"}" ])
{
	my $runner = BoocoderRunner->start;
	$runner->order($case->[1]);
	ok($runner->gone(2), "an order with $case->[0] makes the runner fail");
}
for my $case ([ 'of an unknown role', { role => 'dance' } ], [ 'that is a list', [] ], [ 'without a role', {} ])
{
	my $runner = BoocoderRunner->start;
	$runner->order($case->[1]);
	my $result = $runner->result(5) // {};
	ok(defined $result->{ok} && !$result->{ok} && $result->{reason}, "an order $case->[0] is answered with a reason");
}

# ---- outcomes ----

for my $mode (qw(bwrap off))
{
	my @sandbox = (sandbox => { mode => $mode });
	my $runner = turn(command => sh('echo out; echo err >&2; exit 3'), @sandbox);
	ends($runner, 'failed', 'exit_nonzero', "$mode, exit 3");
	is($runner->{result}{exit_code}, 3, "$mode: with its status");
	is($runner->{result}{stderr_tail}, "err\n", "$mode: its stderr is kept");
	is($runner->{result}{summary}, "out\n", "$mode: its text is the summary");
	is(join('', map { $_->{payload}{text} } grep { $_->{kind} eq 'log' } @{ $runner->{events} }), "err\n", "$mode: and stderr an event");
	is_deeply([ map { $_->{payload} } grep { $_->{kind} eq 'text' } @{ $runner->{parts} } ], [ { text => "out\n" } ], "$mode: one part");

	$runner = turn(command => sh('kill -SEGV $$'), @sandbox);
	ends($runner, 'failed', 'killed_by_signal', "$mode, SIGSEGV");
	is($runner->{result}{signal}, POSIX::SIGSEGV(), "$mode: with its number");

	# It may say good-bye.
	$runner = begin(command => perl('$| = 1; $SIG{TERM} = sub { print "good-bye\n"; exit 0 }; print "up\n"; sleep 1 while 1'), @sandbox);
	$runner->follow(sub { $runner->text =~ /up/ }, 10);
	$runner->cancel;
	$runner->result(5);
	ends($runner, 'cancelled', 'cancelled', "$mode, cancel");
	is($runner->text, "up\ngood-bye\n", "$mode: what it says on SIGTERM is kept");

	# A cancel that is there before the agent
	$runner = BoocoderRunner->start;
	$runner->order(order(command => sh('sleep 60'), @sandbox));
	$runner->cancel;
	$runner->result(5);
	ends($runner, 'cancelled', 'cancelled', "$mode, cancel at once");

	$runner = turn(command => ['no-such-program'], @sandbox);
	ends($runner, 'failed', 'program_not_found', "$mode, no such program");
	like($runner->{result}{message}, qr{no-such-program.*/usr/local/bin:/usr/bin:/bin}, "$mode: it says what was searched");
	$runner = turn(command => ['/nonexistent/program'], @sandbox);
	ends($runner, 'failed', 'program_not_found', "$mode, no such path");
	$runner = turn(command => [], @sandbox);
	ends($runner, 'failed', 'program_not_found', "$mode, no program at all");
	$runner = turn(command => ['true'], cwd => "$place/nowhere", @sandbox);
	ends($runner, 'failed', 'worktree_missing', "$mode, no worktree");
	$runner = turn(command => ['true'], transport => 'telepathy', @sandbox);
	ends($runner, 'failed', 'transport_unsupported', "$mode, unknown transport");

	# Setup
	unlink "$worktree/order";
	$runner = turn(command => sh('cat order'), setup => [ 'echo one >> order', 'echo two >> order; echo said' ], @sandbox);
	ends($runner, 'completed', undef, "$mode, setup");
	is($runner->text, "one\ntwo\n", "$mode: its commands run in order, before the agent");
	ok((grep { $_->{kind} eq 'log' && $_->{payload}{stream} eq 'setup' && $_->{payload}{text} eq "said\n" } @{ $runner->{events} }),
		"$mode: what they say is logged");
	unlink "$worktree/order";
	$runner = turn(command => sh('echo agent'), setup => [ 'true', 'echo broken >&2; exit 4', 'echo three >> order' ], @sandbox);
	ends($runner, 'failed', 'setup_failed', "$mode, setup that fails");
	like($runner->{result}{message}, qr/2.*4/, "$mode: it says which, and how");
	like($runner->{result}{stderr_tail}, qr/broken/, "$mode: and what it said");
	ok(!-e "$worktree/order" && $runner->text eq '', "$mode: nothing runs after it");
	$runner = turn(command => ['true'], setup => ['sleep 60'], setup_timeout_ms => 300, @sandbox);
	ends($runner, 'failed', 'setup_failed', "$mode, setup that takes too long");
	$runner = begin(command => ['true'], setup => ['sleep 60'], @sandbox);
	$runner->wait_phase('setup');
	$runner->cancel;
	$runner->result(5);
	ends($runner, 'cancelled', 'cancelled', "$mode, cancel during setup");

	# Silence: of a command it means nothing, of an agent with a protocol it does.
	$runner = turn(command => sh('sleep 0.6; echo late'), limits => { inactivity_ms => 200 }, @sandbox);
	ends($runner, 'completed', undef, "$mode, a silent command");
	my @acp = (transport => 'acp', sandbox => { mode => $mode, ro_paths => [ "$FindBin::RealBin/../agents", $fake_acp ] });
	$runner = turn(command => [$fake_acp], @acp, input => 'hang', limits => { inactivity_ms => 400 });
	ends($runner, 'failed', 'inactivity_timeout', "$mode, a silent agent");
	$runner = turn(command => [ $fake_acp, '--init=silence' ], @acp, limits => { handshake_ms => 400 });
	ends($runner, 'failed', 'handshake_timeout', "$mode, an agent that does not answer the handshake");
	$runner = begin(command => [$fake_acp], @acp, input => 'on-cancel ignore; text up; silence');
	$runner->follow(sub { $runner->text =~ /up/ }, 10);
	$runner->cancel;
	$runner->result(5);
	ends($runner, 'cancelled', 'cancelled', "$mode, an agent that ignores a cancel");
	$runner = turn(command => [$fake_acp], @acp, input => 'grandchild 60');
	ends($runner, 'completed', undef, "$mode, a grandchild of an agent with a protocol");
	$runner = turn(command => [$fake_acp], @acp, input => 'text before; exit 5');
	ends($runner, 'failed', 'agent_exited', "$mode, an agent that ends before it answers");
	is($runner->text, 'before', "$mode: what it said is kept");

	# Input that nobody reads, or somebody does
	my $long = 'prompt ' x 600_000;
	$runner = turn(command => sh('exit 0'), input => $long, @sandbox);
	ends($runner, 'completed', undef, "$mode, 4 MB of prompt that are not read");
	$runner = turn(command => sh('exec 0<&-; sleep 0.3; echo ok'), input => $long, @sandbox);
	ends($runner, 'completed', undef, "$mode, a closed standard input");
	$runner = turn(command => perl('local $/; $_ = <STDIN>; print length, " ", scalar @ARGV'), input => $long, @sandbox);
	ends($runner, 'completed', undef, "$mode, 4 MB of prompt");
	is($runner->text, length($long) . ' 0', "$mode: all of it is read; it is too long for an argument");

	mkdir "$scratch/bin";
	open my $script, '>', "$scratch/bin/broken" or die;
	print $script "#!/nonexistent/interpreter\n";
	close $script;
	chmod 0755, "$scratch/bin/broken";
	$runner = turn(command => ["$scratch/bin/broken"], sandbox => { mode => $mode, ro_paths => ["$scratch/bin"] });
	ends($runner, 'failed', 'spawn_failed', "$mode, a script without its interpreter");
	$runner = turn(command => ['/usr/share'], @sandbox);
	ends($runner, 'failed', 'program_not_found', "$mode, a directory as program");
	open $script, '>', "$worktree/tool" or die;
	print $script "#!/bin/sh\necho tool\n";
	close $script;
	chmod 0755, "$worktree/tool";
	$runner = turn(command => ['./tool'], @sandbox);
	ends($runner, 'completed', undef, "$mode, a program of the worktree");
	$runner = turn(command => ['true'], git_dir => "$place/nowhere/.git", @sandbox);
	ends($runner, 'failed', 'repository_missing', "$mode, no repository");
	$runner = turn(command => sh('echo setup >&2'), setup => ['echo noise >&2'], @sandbox);
	is($runner->{result}{stderr_tail}, "setup\n", "$mode: the tail of stderr is the agent's alone");
	next if $mode eq 'bwrap';
	$runner = turn(command => sh('exit 137'), @sandbox);
	ends($runner, 'failed', 'exit_nonzero', "$mode, a status like a signal");
	$runner = turn(command => sh('echo "bwrap: no" >&2; exit 1'), @sandbox);
	ends($runner, 'failed', 'exit_nonzero', "$mode, words like those of the sandbox");
}

{
	# Statuses are there even when the one who started the runner did not want its own.
	my $runner = BoocoderRunner->start(prepare => sub { $SIG{CHLD} = 'IGNORE' });
	$runner->order(order(command => sh('exit 3')));
	$runner->result(5);
	ends($runner, 'failed', 'exit_nonzero', 'SIGCHLD ignored');
}

# ---- text ----

{
	my $sample = "a\x{e9}\x{20ac}\x{1f600}z" x 3;
	my $runner = turn(command => perl('$| = 1; binmode STDOUT; for (split //, shift) { syswrite STDOUT, $_; select undef, undef, undef, 0.002 }',
			do { utf8::encode(my $bytes = $sample); utf8::decode($bytes); $bytes }));
	ends($runner, 'completed', undef, 'one byte at a time');
	is($runner->text, $sample, 'no character is torn in the events');
	is($runner->part_text, $sample, 'nor in the parts');

	$runner = turn(command => perl('binmode STDOUT; print map { chr } 0 .. 255; print "\xed\xa0\x80\xc0\x80\xf5\xe2\x82"'));
	ends($runner, 'completed', undef, 'bytes that are no text');
	is($runner->text, $runner->part_text, 'the same replacements in events and parts');
	like($runner->text, qr/^\x{fffd}\x01.*\x{fffd}+\z/s, 'are U+FFFD');
	like($runner->text, qr/ !"#.*xyz\{/s, 'around what is text');

	$runner = turn(command => perl('print "x" x 3_000_000, "END"'));
	ends($runner, 'completed', undef, 'a line of 3 MB');
	is(length $runner->text, 3_000_003, 'comes whole in events');
	is(length $runner->part_text, 3_000_003, 'and in parts');
	cmp_ok((sort { $b <=> $a } map { length($_->{payload}{delta} // '') } @{ $runner->{events} })[0], '<=', 256 * 1024, 'of a bounded size each');
	cmp_ok((sort { $b <=> $a } map { length($_->{payload}{text} // '') } @{ $runner->{parts} })[0], '<=', 1024 * 1024, 'the parts as well');
	is(join(' ', map { $_->{seq} } @{ $runner->{parts} }), join(' ', 1 .. @{ $runner->{parts} }), 'which are numbered');
	cmp_ok(length $runner->{result}{summary}, '<=', 4000, 'the summary is one');

	$runner = turn(command => perl('print STDERR "x" x 300_000, "END"; exit 1'));
	is(length $runner->{result}{stderr_tail}, 65_536, 'of stderr 64 KiB are kept');
	like($runner->{result}{stderr_tail}, qr/END\z/, 'the last ones');

	$runner = begin(command => perl('$| = 1; print "first"; sleep 60'));
	$runner->follow(sub { $runner->text eq 'first' }, 10);
	is($runner->text, 'first', 'text arrives while the agent runs');
	$runner->stop;
}

# ---- floods, and a dispatcher that is slow ----

my %floods = (
	text => 'my $x = "some words and a newline\n" x 2000; print $x while 1',
	NULs => 'my $x = "\0" x 65536; print $x while 1',
	controls => 'my $x = "\x01" x 65536; print $x while 1',
	'bytes that are no text' => 'my $x = "\xff" x 65536; print $x while 1',
	'one line' => 'my $x = "x" x 65536; print $x while 1',
	stderr => 'my $x = "\xfe" x 65536; print STDERR $x while 1',
	'bytes, one by one' => '$| = 1; syswrite STDOUT, "x" while 1',
	both => 'fork; my $x = "both\n" x 10000; print STDERR $x, print $x while 1',
);
for my $name (sort keys %floods)
{
	my $runner = begin(command => perl($floods{$name}), sandbox => { mode => 'off' });
	my $limit = 24 * 1024;

	# Not read at all: the agent gets stuck in its pipe. Its processes sleep then, twice in a row.
	my ($guard, @agents);
	my $still = 0;
	my $stuck = until_true(sub {
		($guard) = child_of($runner->{pid}) or return 0;
		@agents = child_of($guard);
		my $sleeping = @agents && !grep { open my $f, '<', "/proc/$_/wchan"; ($f ? <$f> // '' : '') !~ /pipe/ } @agents;
		$still = $sleeping ? $still + 1 : 0;
		return $still >= 20;
	}, 10);
	ok($stuck, "a flood of $name: the agent waits for the dispatcher");
	cmp_ok($runner->memory_kb('VmHWM'), '<', $limit, "a flood of $name: the runner is not fed without bound");
	$runner->follow(sub { $runner->{bytes} > 3 * 1024 * 1024 }, 10);
	cmp_ok($runner->{bytes}, '>', 2 * 1024 * 1024, "a flood of $name: it goes on");
	cmp_ok($runner->memory_kb('VmHWM'), '<', $limit, "a flood of $name: in the same memory");
	$runner->{events} = [];
	$runner->cancel;
	$runner->result(20);
	ends($runner, 'cancelled', 'cancelled', "a flood of $name: cancelled");
}

{
	# A dispatcher that does not listen can still cancel, and a time-out still passes.
	my $marker = new_marker();
	my $runner = begin(command => perl($floods{text}, $marker), limits => { timeout_ms => 600 });
	ok(until_true(sub { marked($marker) }, 5), 'an agent that floods is up');
	none_left($marker, 'a time-out behind a full pipe');
	$runner->result(10);
	ends($runner, 'failed', 'timeout', 'a flood that takes too long');
}

{
	# What an agent said last waits in its pipe for a dispatcher that is slow. How much fits where is the kernel's business:
	# some of these are in the right place.
	my @runners;
	for my $size (map { 600 + 48 * $_ } 0 .. 9)
	{
		my $runner = begin(command => perl('print "x" x (1024 * shift), "THE END"', "$size"), sandbox => { mode => 'off' });
		push @runners, [ $size * 1024 + 7, $runner ];
	}
	# Longer than any patience of the runner's
	my $slow = time() + 2.5;
	until_true(sub { time() > $slow }, 3);
	is_deeply([ map { $_->[1]->result(10); length $_->[1]->text } @runners ], [ map { $_->[0] } @runners ],
		'a slow dispatcher gets all of it');
}

# ---- the sandbox ----

{
	my $git = "$scratch/repository/.git";
	my $other = "$scratch/other";
	my $shown = "$other/shown";
	my $data = "$shown/data";
	mkdir $_ for "$scratch/repository", $git, $other, $shown, $data, "$place/sibling";
	spew("$git/config", "[core]\n");
	spew("$worktree/.git", "gitdir: elsewhere\n");
	spew("$data/PG_VERSION", "15\n");
	spew("$shown/visible", "yes\n");
	spew("$place/sibling/private", "no\n");
	spew("$other/private", "no\n");

	my $try = 'try() { n=$1; shift; if ("$@") >/dev/null 2>&1; then echo "$n yes"; else echo "$n no"; fi; }';
	my $runner = turn(git_dir => $git, sandbox => { ro_paths => [$shown], hide => [$data] }, command => sh(<<"SH"));
$try
try +read-worktree cat '$worktree/.git'
try +write-worktree sh -c 'echo x > new'
try +write-home sh -c 'echo x > ~/new'
try +write-tmp sh -c 'echo x > /tmp/new'
try +read-git cat '$git/config'
try +read-shown cat '$shown/visible'
try -write-git sh -c 'echo x > "$git/new"'
try -write-dot-git sh -c 'echo x > "$worktree/.git"'
try -remove-dot-git rm -f '$worktree/.git'
try -move-dot-git mv '$worktree/.git' '$worktree/.git2'
try -write-shown sh -c 'echo x > "$shown/new"'
try -write-beside sh -c 'echo x > "$place/new"'
try -write-root sh -c 'echo x > /new'
try -write-usr sh -c 'echo x > /usr/new'
try -write-etc sh -c 'echo x >> /etc/passwd'
try -hidden cat '$data/PG_VERSION'
try -sibling cat '$place/sibling/private'
try -other cat '$other/private'
try -this-test kill -0 $$
try -the-runner test -e /proc/$$/stat
try -uncover unshare -Urm sh -c 'umount -l "$data" && cat "$data/PG_VERSION"'
try -remount unshare -Urm sh -c 'mount -o remount,rw,bind / && echo x > /new'
SH
	ends($runner, 'completed', undef, 'an agent that looks around');
	my @answers = map { [ /^([+-])(\S+) (yes|no)$/ ] } split /\n/, $runner->text;
	is($_->[2], $_->[0] eq '+' ? 'yes' : 'no', "in the sandbox: $_->[1]") for @answers;
	is(scalar @answers, 22, 'everything was tried');
	ok(!-e "$git/new" && !-e "$place/new" && !-e "/tmp/new" && -e "$worktree/new" && -e "$place/home/new", 'and had its effect');

	$runner = turn(command => perl('print -e "/sys/class/net" ? "" : ""; open my $f, "<", "/proc/net/dev"; print grep { /eth|ens|lo:/ } <$f>'),
		sandbox => { network => JSON::PP::false });
	unlike($runner->text, qr/eth|ens/, 'no network without "network"');

	$runner = turn(command => ["$other/program"]);
	ends($runner, 'failed', 'program_not_found', 'a program that is not there');
	spew("$other/program", "#!/bin/sh\necho ran\n");
	chmod 0755, "$other/program";
	$runner = turn(command => ["$other/program"]);
	ends($runner, 'failed', 'program_not_found', 'a program the sandbox does not show');
	like($runner->{result}{hint}, qr/sandbox_ro_paths/, 'says which setting shows it');
	$runner = turn(command => ["$other/program"], sandbox => { ro_paths => [$other] });
	is($runner->text, "ran\n", 'and it does');

	# Paths are compared by what they are.
	symlink $shown, "$other/link";
	symlink $data, "$other/data-link";
	my $look = sub {
		my ($name, $ro, $hide, $path) = @_;
		my $beside = ($path =~ s{[^/]+$}{visible}r);
		my $seen = turn(command => sh("cat $beside; cat $path/PG_VERSION && echo LEAK"), sandbox => { ro_paths => $ro, hide => $hide });
		is($seen->text, "yes\n", "hidden: $name");
	};
	$look->('plainly', [$shown], [$data], $data);
	$look->('named by a link', [$shown], ["$other/data-link"], $data);
	$look->('named through a link', [$shown], ["$other/link/data"], $data);
	$look->('shown through a link', ["$other/link"], [$data], "$other/link/data");
	$look->('with a slash', ["$shown/"], ["$data/"], $data);
	$look->('behind many others', [ (map { "/nonexistent/$_" } 1 .. 80), $shown ], [$data], $data);
	$look->('with all of the host shown', ['/'], [$data], $data);
	$runner = turn(command => sh('ls /proc | grep -c "^[0-9]"; echo x > /tmp/new && cat /tmp/new'), sandbox => { ro_paths => ['/'] });
	like($runner->text, qr/^[1-9]\nx\n\z/, 'with all of the host shown, /proc and /tmp are the own ones');

	# What the administrator shows may lie beside the worktree or the repository.
	mkdir "$place/venv";
	spew("$place/venv/tool", "#!/bin/sh\necho venv\n");
	chmod 0755, "$place/venv/tool";
	$runner = turn(command => ["$place/venv/tool"], sandbox => { ro_paths => ["$place/venv"] });
	is($runner->text, "venv\n", 'something shown beside the worktree');
	symlink '/usr/bin/env', "$other/env";
	$runner = turn(command => ["$other/env"]);
	ends($runner, 'failed', 'program_not_found', 'a link the sandbox does not show, to a program it does');
}

# A host where bubblewrap is missing, or does not work: made with bubblewrap.
for my $case ([ 'missing', qr/not installed/, '--ro-bind', '/dev/null', $bwrap ], [ 'broken', qr/./, '--unshare-user', '--disable-userns' ])
{
	my ($name, $message, @option) = @$case;
	SKIP:
	{
		my @outer = ($bwrap, '--bind', '/', '/', '--dev-bind', '/dev', '/dev', '--proc', '/proc', @option, '--');
		skip "bubblewrap can't make such a host here", 4 if system("@outer true 2>/dev/null") != 0;
		my $runner = BoocoderRunner->start(command => [ @outer, $program ]);
		$runner->order(order(command => ['true']));
		$runner->result(10);
		is($runner->{result}{reason}, 'sandbox_unavailable', "bubblewrap is $name: sandbox_unavailable");
		like($runner->{result}{message} // '', $message, "bubblewrap is $name: with a message");
		ok($runner->{result}{hint}, "bubblewrap is $name: and a hint");
		$runner->stop;
		$runner = BoocoderRunner->start(command => [ @outer, $program ]);
		mkdir "$scratch/root", 0700;
		$runner->order({ role => 'check', sandbox => order()->{sandbox}, root => "$scratch/root", forbidden => [] });
		my $checks = ($runner->result(15) // {})->{checks} // [];
		is((map { $_->{status} } grep { $_->{check} eq 'sandbox' } @$checks)[0], 'error', "bubblewrap is $name: the check says so");
	}
}

{
	my $check = sub {
		my (%option) = @_;
		my $runner = BoocoderRunner->start;
		$runner->order({ role => 'check', sandbox => order()->{sandbox}, root => "$scratch/root", forbidden => [], %option });
		return join ' ', map { "$_->{check}:$_->{status}" } @{ ($runner->result(15) // {})->{checks} // [] };
	};
	is($check->(), 'worktree root:ok sandbox:ok', 'the check of a good host');
	is($check->(forbidden => [$scratch]), 'worktree root:error', 'a root inside a forbidden place');
	is($check->(root => 'relative'), 'worktree root:error', 'a relative root');
	chmod 0777, "$scratch/root";
	is($check->(), 'worktree root:error', 'a root that others may write');
	chmod 0700, "$scratch/root";
	is($check->(sandbox => { mode => 'off' }), 'worktree root:ok sandbox:warning', 'no sandbox is a warning');
}

# ---- the cost of a start ----

for my $mode (qw(bwrap off))
{
	my @took;
	for (1 .. 11)
	{
		my $runner = turn(command => ['/bin/true'], sandbox => { mode => $mode });
		my ($spawned) = map { $_->{at} } grep { $_->{kind} eq 'status' && $_->{payload}{phase} eq 'spawned' } @{ $runner->{events} };
		push @took, ($spawned // 0) - $runner->{ordered};
	}
	my $median = (sort { $a <=> $b } @took)[5];
	note(sprintf '%s: from the order to the program is %.1f ms (median; up to 5 of them for the batch)', $mode, 1000 * $median);
	cmp_ok($median, '<', 0.25, "$mode: a start takes no time");
}

done_testing();

sub spew
{
	my ($path, $content) = @_;
	open my $file, '>', $path or die "$path: $!";
	print $file $content;
	close $file or die "$path: $!";
}
