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
