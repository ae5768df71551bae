# SPDX-License-Identifier: PostgreSQL
#
# Plays the dispatcher for one boocoder-runner, without a server: starts it with a socket as its standard input and
# output, sends frames, collects what comes back. Core Perl only; the frames are described in src/common/frame.h.
#
#   my $runner = BoocoderRunner->start;
#   $runner->order({role => 'check', ...});
#   my $result = $runner->result(10);           # undef: none came; events and parts are collected on the way
#   $runner->answer(request => '1', option => 'yes');
#   $runner->cancel; $runner->hang_up; $runner->gone(2); $runner->stop;
#
# Nothing sleeps for a fixed time; what waits has a deadline in seconds.
package BoocoderRunner;

use strict;
use warnings;

use Cwd qw(abs_path);
use Fcntl qw(F_GETFL F_SETFL O_NONBLOCK);
use File::Basename qw(dirname);
use IO::Select;
use JSON::PP ();
use POSIX qw(WNOHANG);
use Socket;
use Time::HiRes qw(time usleep);

use constant {
	VERSION => 1, HEADER => 16, FRAME_MAX => 1024 * 1024, MORE => 1, KEPT => 2,
	ORDER => 1, CANCEL => 2, ANSWER => 3, HELLO => 64, EVENTS => 65, RESULT => 66, SERVER => 67,
};

# Strict about UTF-8: what the runner sends has to be valid.
my $json = JSON::PP->new->utf8->allow_nonref;

# The program to test: $BOOCODER_RUNNER, or the one built in this source tree.
sub program
{
	return $ENV{BOOCODER_RUNNER} // abs_path(dirname(__FILE__) . '/../../../src/runner/boocoder-runner');
}

# start(OPTION => VALUE ...): a runner that said hello.
#   program  another one than program()
#   command  [PROGRAM, ARGUMENT ...] to be run, such as a wrapper around the runner
#   prepare  code to be run in the child before the exec
sub start
{
	my ($class, %option) = @_;
	my @command = @{ $option{command} // [ $option{program} // program() ] };

	socketpair(my $mine, my $its, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die "socketpair: $!";
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		$SIG{__DIE__} = sub { warn @_; POSIX::_exit(126) };
		close $mine;
		POSIX::setsid();
		POSIX::dup2(fileno $its, 0) // die "dup2: $!";
		POSIX::dup2(fileno $its, 1) // die "dup2: $!";
		$option{prepare}->() if $option{prepare};
		{ exec { $command[0] } @command }
		die "$command[0]: $!";
	}
	close $its;
	fcntl($mine, F_SETFL, fcntl($mine, F_GETFL, 0) | O_NONBLOCK) or die "fcntl: $!";
	my $self = bless {
		pid => $pid, socket => $mine, turn => 0, in => '', partial => '', messages => [],
		events => [], parts => [], bytes => 0, owner => $$,
	}, $class;
	my $hello = $self->message($option{timeout} // 10);
	die 'the runner did not say hello' unless $hello && $hello->{type} == HELLO;
	$self->{hello} = $hello->{payload};
	return $self;
}

# ---- to the runner ----

# Writes bytes as they are; false when the runner does not take them.
sub write_raw
{
	my ($self, $bytes, $seconds) = @_;
	my $end = time() + ($seconds // 10);

	local $SIG{PIPE} = 'IGNORE';
	while (length $bytes)
	{
		my $n = syswrite $self->{socket}, $bytes;
		if (defined $n) { substr($bytes, 0, $n) = ''; next }
		return 0 unless $!{EAGAIN} || $!{EINTR};
		return 0 if time() > $end;
		IO::Select->new($self->{socket})->can_write(0.1);
	}
	return 1;
}

sub frame
{
	my ($type, $turn, $payload, $flags) = @_;
	return pack('N C C n Q>', length $payload, VERSION, $type, $flags // 0, $turn) . $payload;
}

# order(\%ORDER, OPTION => VALUE ...): sends it; "turn" is the generation, 7 if not given. A kept runner takes another
# one, and what the turn before brought is forgotten.
sub order
{
	my ($self, $order, %option) = @_;
	my $payload = ref $order ? $json->encode($order) : $order;
	my $frames = '';

	delete $self->{result};
	@$self{qw(events parts server)} = ([], [], []);
	$self->{turn} = $option{turn} // 7;
	do
	{
		my $part = substr $payload, 0, FRAME_MAX, '';
		$frames .= frame(ORDER, $self->{turn}, $part, length $payload ? MORE : 0);
	} while (length $payload);
	$self->{ordered} = time();
	return $self->write_raw($frames);
}

sub cancel
{
	my ($self) = @_;
	return $self->write_raw(frame(CANCEL, $self->{turn}, ''));
}

sub answer
{
	my ($self, %answer) = @_;
	return $self->write_raw(frame(ANSWER, $self->{turn}, $json->encode(\%answer)));
}

# The dispatcher goes: the runner reads the end of the file.
sub hang_up
{
	my ($self) = @_;
	close delete $self->{socket} if $self->{socket};
}

# ---- from the runner ----

# Reads once what has arrived, at most "max" bytes; false at the end of the file.
sub read_some
{
	my ($self, $seconds, $max) = @_;
	return 0 unless $self->{socket};
	return 1 unless IO::Select->new($self->{socket})->can_read($seconds);
	my $n = sysread $self->{socket}, $self->{in}, $max // 65536, length $self->{in};
	return $!{EAGAIN} || $!{EINTR} ? 1 : 0 unless defined $n;
	$self->{bytes} += $n;
	return $n > 0;
}

# Takes the frames out of what was read; whole messages go to the list.
sub take_frames
{
	my ($self) = @_;

	while (length $self->{in} >= HEADER)
	{
		my ($length, $version, $type, $flags, $turn) = unpack 'N C C n Q>', $self->{in};
		die "frame of version $version" unless $version == VERSION;
		die "frame of $length bytes" if $length > FRAME_MAX;
		die "frame with flags $flags" if $flags & ~(MORE | KEPT);
		last if length $self->{in} < HEADER + $length;
		$self->{partial} .= substr $self->{in}, HEADER, $length;
		substr($self->{in}, 0, HEADER + $length) = '';
		next if $flags & MORE;
		my $text = $self->{partial};
		$self->{partial} = '';
		die 'NUL in a payload' if $text =~ /\0/;
		die 'U+0000 in a payload' if $text =~ /(?<!\\)(?:\\\\)*\\u0000/;
		push @{ $self->{messages} },
		  { type => $type, turn => $turn, kept => $flags & KEPT, size => length $text, payload => $json->decode($text), at => time() };
	}
}

# The next message, or undef when none came in time or the runner has closed.
sub message
{
	my ($self, $seconds) = @_;
	my $end = time() + $seconds;

	until (@{ $self->{messages} })
	{
		my $left = $end - time();
		my $open = $left > 0 && $self->read_some($left);
		$self->take_frames;
		last unless $open || @{ $self->{messages} };
	}
	return shift @{ $self->{messages} };
}

# Reads on until CODE returns true or the deadline; events and parts are kept, a RESULT too.
sub follow
{
	my ($self, $code, $seconds) = @_;
	my $end = time() + $seconds;

	while (1)
	{
		my $value = $code->($self);
		return $value if $value;
		return if $self->{closed};
		my $left = $end - time();
		return if $left <= 0;
		my $message = $self->message($left < 0.02 ? $left : 0.02);
		if (!$message)
		{
			$self->{closed} = 1 unless $self->read_some(0);
			$self->take_frames;
			delete $self->{closed} if @{ $self->{messages} };
			next;
		}
		die "frame of turn $message->{turn}" unless $message->{turn} == $self->{turn};
		die 'a message after the RESULT' if $self->{result};
		if ($message->{type} == EVENTS)
		{
			push @{ $self->{events} }, map { $_->{at} = $message->{at}; $_ } @{ $message->{payload}{events} // [] };
			push @{ $self->{parts} }, @{ $message->{payload}{parts} // [] };
		}
		elsif ($message->{type} == RESULT) { @$self{qw(result kept)} = ($message->{payload}, $message->{kept} != 0) }
		elsif ($message->{type} == SERVER) { push @{ $self->{server} }, { %{ $message->{payload} }, at => $message->{at} } }
		else { die "frame of type $message->{type}" }
	}
}

sub result
{
	my ($self, $seconds) = @_;
	$self->follow(sub { $self->{result} }, $seconds);
	return $self->{result};
}

# What the agent said: all deltas, or all text parts, in one string.
sub text
{
	my ($self) = @_;
	return join '', map { $_->{payload}{delta} } grep { $_->{kind} eq 'text' } @{ $self->{events} };
}

sub part_text
{
	my ($self) = @_;
	return join '', map { $_->{payload}{text} } grep { $_->{kind} eq 'text' } @{ $self->{parts} };
}

# Waits until a phase ("setup", "spawned") was reported.
sub wait_phase
{
	my ($self, $phase, $seconds) = @_;
	return $self->follow(
		sub { grep { $_->{kind} eq 'status' && $_->{payload}{phase} eq $phase } @{ $self->{events} } }, $seconds // 10);
}

# ---- the process ----

# Its wait status once it has ended, undef when it has not in time.
sub gone
{
	my ($self, $seconds) = @_;
	my $end = time() + $seconds;

	until (defined $self->{status})
	{
		my $pid = waitpid $self->{pid}, WNOHANG;
		$self->{status} = $? if $pid == $self->{pid};
		$self->{status} //= -1 if $pid < 0;
		last if time() > $end;
		usleep(5_000) unless defined $self->{status};
	}
	return $self->{status};
}

# A line of /proc/PID/status in kB, such as VmHWM.
sub memory_kb
{
	my ($self, $field) = @_;
	open my $file, '<', "/proc/$self->{pid}/status" or return;
	return (map { /^\Q$field\E:\s+(\d+) kB/ ? $1 : () } <$file>)[0];
}

sub stop
{
	my ($self) = @_;
	$self->hang_up;
	return if defined $self->gone(3);
	kill 'KILL', $self->{pid};
	$self->gone(3);
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $!, $@);
	$self->stop if $self->{owner} == $$ && !defined $self->{status};
}

1;
