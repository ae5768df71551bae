# SPDX-License-Identifier: PostgreSQL
#
# The transports, each with a scripted agent, for tests that do the same over all of them. This table is the one place
# that knows them apart: a transport more, or another way to run an agent, is a row more.
#
# A script is a list of steps, each [NAME, ARGUMENT ...]; prompt_for(ROW, STEP ...) says it in the agent's own words:
#
#   say TEXT          text of the agent, one line
#   write PATH TEXT   a file of the worktree
#   run COMMAND       a shell command (one line, no semicolon, no backslash); its output is not looked at
#   noise             what no agent should say: junk, NUL, bytes that are no UTF-8
#   flood N BYTES     N texts of so many bytes (a multiple of 8), as fast as possible
#   hang              goes on without end
#   exit CODE         ends at once
#   fail TEXT         tells that its turn failed, in its own way
#
# A row:
#
#   name       of the row and of its provider
#   transport, command, kind       of the provider
#   words      {STEP => CODE}: the words for a step; "between" joins them
#   program    what the agent's own command line looks like, the programs around it aside
#   reasons    {exit, fail, killed}: why a task fails whose agent ends with a status, tells it, is killed
#   shared     1: one program serves the turns of all, and stays when one ends
#   tells      what the message of a task says whose agent ends with status 1; status 1, unless this is there
#   kept       1: the agent stays for other turns of its chat, and each scenario is the second turn of one
#   cannot     {SCENARIO or STEP => why}: what this transport has no way to do
package BoocoderTransports;

use strict;
use warnings;

use BoocoderTest;
use Exporter qw(import);

our @EXPORT = qw(transports add_transport prompt_for cannot);

my $own_status = 'its exit status is all it can tell';

# Of the agents that know these words by name
my %by_name = map { my $word = $_; $word => sub { return join ' ', $word, @_ } } qw(write run flood exit fail);

my @stream = (
	transport => 'stream_json', kind => 'claude', between => ';', program => qr{/fake-stream\n},
	words => {
		%by_name,
		say => sub { return "text $_[0]\\n" },
		noise => sub { return ('junk not a message', 'nul', 'bad-utf8', 'surrogates', 'deep 5000') },
		hang => sub { return 'silence' },
	},
	reasons => { exit => 'agent_exited', fail => 'agent_error', killed => 'agent_exited' });

my @acp = (
	transport => 'acp', command => ["$agents_dir/fake-acp"], between => ';', program => qr{/fake-acp\n},
	words => {
		%by_name,
		say => sub { return "text $_[0]\\n" },
		noise => sub { return ('junk not a message', 'nul', 'bad-utf8', 'surrogates', 'deep 5000') },
		hang => sub { return 'silence' },
		fail => sub { return "error -32603 $_[0]" },
	},
	reasons => { exit => 'agent_exited', fail => 'agent_error', killed => 'agent_exited' });

my $not_the_turns = 'what a turn starts is the server\'s, and ends with it';

my @served = (
	transport => 'opencode_server', kind => 'opencode', command => ["$agents_dir/fake-opencode"], between => ';', shared => 1,
	program => qr{/fake-opencode\n},
	words => {
		%by_name,
		say => sub { return "text $_[0]\n" },
		noise => sub { return ('junk', 'hex ' . unpack('H*', "data: {\"a\0b\":\"\xff\xfe\xed\xa0\x80\"}"), 'big 300000', 'split') },
		hang => sub { return 'hang' },
		fail => sub { return "error 400 $_[0]" },
	},
	reasons => { exit => 'agent_exited', fail => 'agent_error' }, tells => qr/server ended during the turn/,
	cannot => {
		(map { $_ => $not_the_turns } 'a cancel', 'a time-out', 'kill -9 of the agent', 'kill -9 of the runner'),
		errors => 'standard error is the server\'s, not a turn\'s',
	});

my @rows = (
	{
		name => 'command', transport => 'command', command => [ '/bin/sh', '-c', 'eval "$0"' ], between => "\n",
		program => qr{\A/bin/sh\n-c\neval},
		words => {
			say => sub { return "echo '$_[0]'" },
			write => sub { return "echo '$_[1]' > '$_[0]'" },
			run => sub { return $_[0] },
			noise => sub { return q~printf '{"not": "for us"\na\000b \377\376 \355\240\200\n'~ },
			flood => sub { return "perl -e 'print substr(q{abcdefgh} x $_[1], 0, $_[1]) for 1 .. $_[0]'" },
			hang => sub { return 'while :; do sleep 0.1; done' },
			exit => sub { return "exit $_[0]" },
		},
		reasons => { exit => 'exit_nonzero', killed => 'killed_by_signal' },
		cannot => { fail => $own_status },
	},
	{ name => 'acp', @acp },
	{ name => 'acp_kept', @acp, kept => 1 },
	{ name => 'stream_json', command => [ "$agents_dir/fake-stream", '--dialect=claude' ], @stream },
	{
		name => 'stream_json_control', @stream,
		command => [ "$agents_dir/fake-stream", '--dialect=claude', '--input-format', 'stream-json' ],
	},
	{
		name => 'opencode', @stream, transport => 'opencode', kind => 'opencode',
		command => [ "$agents_dir/fake-stream", '--dialect=opencode' ],
	},
	{
		name => 'pty', transport => 'pty', command => ["$agents_dir/fake-pty"], between => '; ', program => qr{/fake-pty\n},
		words => {
			%by_name,
			say => sub { return "say $_[0]" },
			noise => sub { return 'bytes 1b5b33316d' . '7b226e6f7422610062' . 'fffe20eda0801b5d' . '30' x 200 . '070a' },
			hang => sub { return 'hang' },
		},
		reasons => { exit => 'exit_nonzero', killed => 'killed_by_signal' },
		cannot => { fail => $own_status, errors => 'standard error is its terminal, and so text' },
	},
	{ name => 'opencode_server', @served },
	{ name => 'opencode_server_kept', @served, kept => 1 },
);

sub transports { return @rows }

# Why a row can't do something; undef when it can.
sub cannot
{
	my ($row, @what) = @_;
	return (grep { defined } map { $row->{cannot}{$_} } @what)[0];
}

sub prompt_for
{
	my ($row, @script) = @_;
	return join $row->{between}, map { my ($step, @arguments) = @$_; $row->{words}{$step}->(@arguments) } @script;
}

# The provider of a row, with an environment: a hash as in providers.env.
sub add_transport
{
	my ($node, $row, $env) = @_;
	my $command = join ', ', map { literal($_) } @{ $row->{command} };
	sql($node, "SELECT boocoder.register_provider('$row->{name}', '$row->{transport}', ARRAY[$command], "
		  . literal(json->encode($env)) . '); UPDATE boocoder.providers SET kind = ' . literal($row->{kind}) . " WHERE name = '$row->{name}'");
}

1;
