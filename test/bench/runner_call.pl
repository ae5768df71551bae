#!/usr/bin/perl
# SPDX-License-Identifier: PostgreSQL
#
# runner_call.pl [--time] RUNNER < ORDER
#
# Starts a boocoder-runner, sends it the ORDER that is read from standard
# input (JSON), and prints its RESULT.  With --time, prints before it a line
# with the milliseconds from the ORDER to the RESULT: the runner was started
# and had said HELLO before, as the dispatcher's spare ones have.
use strict;
use warnings;
use IO::Handle;
use JSON::PP;
use Socket;
use Time::HiRes qw(time);

use constant { VERSION => 1, ORDER => 1, HELLO => 64, RESULT => 66, MORE => 1, MAX => 1 << 20 };

sub read_bytes
{
	my ($socket, $length) = @_;
	my $bytes = '';

	while (length $bytes < $length)
	{
		my $got = sysread $socket, $bytes, $length - length $bytes, length $bytes;
		die "the runner went away\n" unless $got;
	}
	return $bytes;
}

# Next whole message: type and payload.
sub read_message
{
	my ($socket) = @_;
	my $payload = '';

	while (1)
	{
		my ($length, $version, $type, $flags) = unpack 'N C C n', read_bytes($socket, 16);

		die "frame of version $version\n" if $version != VERSION;
		$payload .= read_bytes($socket, $length);
		return ($type, $payload) unless $flags & MORE;
	}
}

sub send_message
{
	my ($socket, $type, $payload) = @_;

	do
	{
		my $part = substr $payload, 0, MAX, '';
		my $frame = pack('N C C n N N', length $part, VERSION, $type,
			length $payload ? MORE : 0, 0, 1) . $part;

		while (length $frame)
		{
			my $put = syswrite $socket, $frame;
			die "cannot send: $!\n" unless $put;
			substr $frame, 0, $put, '';
		}
	} while (length $payload);
}

my $timed = @ARGV && $ARGV[0] eq '--time' ? shift : 0;
my $runner = shift or die "usage: runner_call.pl [--time] RUNNER < ORDER\n";
my $order = do { local $/; <STDIN> };

JSON::PP->new->utf8->decode($order);    # better said here than by the runner
socketpair my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC or die "socketpair: $!\n";
my $pid = fork // die "fork: $!\n";
if ($pid == 0)
{
	close $ours;
	open STDIN, '<&', $theirs or die;
	open STDOUT, '>&', $theirs or die;
	exec $runner or die "cannot run $runner: $!\n";
}
close $theirs;

my ($type) = read_message($ours);
die "HELLO expected, got a frame of type $type\n" if $type != HELLO;
my $start = time;
send_message($ours, ORDER, $order);
my $payload;
do { ($type, $payload) = read_message($ours) } while ($type != RESULT);
printf "%.1f\n", (time - $start) * 1000 if $timed;
print "$payload\n";
close $ours;
waitpid $pid, 0;
exit($? == 0 ? 0 : 1);
