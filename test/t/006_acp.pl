# SPDX-License-Identifier: PostgreSQL
#
# Agents that speak the Agent Client Protocol, from the well-behaved to the broken: each thing one of them may do has a
# defined outcome. The agent is test/agents/fake-acp, which does what its prompt says; see there for the words.
use strict;
use utf8;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use Encode qw(decode encode);
use Test::More;

my $node = new_node('acp', conf => <<'CONF');
boocoder.max_running = 6
boocoder.turn_inactivity_timeout = '4s'
boocoder.handshake_timeout = '4s'
boocoder.cancel_grace = '1s'
boocoder.term_grace = '500ms'
boocoder.max_line = '8MB'
max_wal_size = '2GB'
CONF
my $repo = make_repo('acp');
add_project($node, 'demo', $repo);
ok(wait_dispatcher($node), 'the dispatcher is there');

my %registered;

# The agent with these arguments, under a name of its own.
sub fake
{
	my (@args) = @_;
	my $key = join ' ', @args;
	return $registered{$key} //= add_fake_acp($node, 'fake' . keys %registered, @args);
}

# ---- outcomes: all of these run at once, and are looked at afterwards ----

# name, prompt, state, reason, {args => [...], text => pattern, error => pattern, run => {...}, check => code}
my @cases = (
	[ 'a text', 'text Hello ;text , world', 'completed', undef, { text => qr/^Hello ?, world$/ } ],
	[ 'a prompt of words', 'do what I mean', 'completed', undef, { text => qr/You said: do what I mean/ } ],
	[ 'one byte a write', 'bytes on; text sl\xc3\xb6w; tool t1 Edit', 'completed', undef, { text => qr/slöw/ } ],
	[ 'split anywhere', 'split 7; text caf\xc3\xa9 \xe2\x82\xac; think hm', 'completed', undef, { text => qr/café €/ } ],
	[ 'one character a chunk', 'chars grüße €', 'completed', undef, { text => qr/^grüße €$/ } ],
	[ 'CR LF', 'crlf on; text lines', 'completed', undef, { text => qr/^lines$/ } ],
	[ 'a banner on stdout', 'text fine', 'completed', undef, { args => ['--banner=Welcome!'], text => qr/^fine$/,
		check => sub { like(events_json($_[0], 'log'), qr/Welcome!/, 'the banner is in the log') } } ],
	[ 'junk on stdout', 'junk not json at all; junk {"jsonrpc":; junk []; junk 42; junk; text fine', 'completed', undef,
		{ text => qr/^fine$/, check => sub { like(events_json($_[0], 'log'), qr/not json at all/, 'junk is in the log') } } ],
	[ 'NUL', 'nul', 'completed', undef, { text => qr/^a\x{FFFD}b$/ } ],
	[ 'lone surrogates', 'surrogates', 'completed', undef, { text => qr/pair \x{1F600} high \x{FFFD}+ low \x{FFFD}+ end/ } ],
	[ 'invalid UTF-8', 'bad-utf8', 'completed', undef, { text => qr/good é bad \x{FFFD}+ cut \x{FFFD}+ end/ } ],
	[ 'control characters', 'control; text after', 'completed', undef, { text => qr/after/ } ],
	[ 'numbers out of range', 'big-numbers; text after', 'completed', undef, { text => qr/after/ } ],
	[ 'a chunk of 2 MB', 'giant 2', 'completed', undef, { check => sub {
		my ($task) = @_;
		cmp_ok(sql($node, "SELECT max(length(payload::text)) FROM boocoder.events WHERE task_id = $task"), '<', 400_000,
			'no event is larger than it may be');
		cmp_ok(sql($node, "SELECT max(length(payload::text)) FROM boocoder.message_parts WHERE task_id = $task"), '<', 1_200_000,
			'nor a part') } } ],
	[ 'a line over the limit', 'giant-line 9', 'failed', 'line_too_long' ],
	[ 'an update nested too deeply', 'deep 5000; text after', 'completed', undef, { text => qr/after/ } ],
	[ 'an update of a kind nobody knows', 'unknown brand_new; notify _vendor/thing; text after', 'completed', undef,
		{ text => qr/after/, check => sub { like(events_json($_[0], 'raw'), qr/thing/, 'it is kept as it is') } } ],
	[ 'a flood', 'flood 60000 64', 'completed', undef, { check => sub {
		my $length = length text_of($node, $_[0]);
		is(sql($node, "SELECT sum(length(payload->>'delta')) FROM boocoder.events WHERE task_id = $_[0] AND kind = 'text'"),
			60000 * 64, 'every byte of it arrives') } } ],
	[ 'a flood on stderr', 'stderr-flood 3000000; text after', 'completed', undef, { text => qr/after/ } ],
	[ 'silence', 'text quiet; silence', 'failed', 'inactivity_timeout', { text => qr/quiet/ } ],
	[ 'an agent that hangs', 'hang', 'failed', 'inactivity_timeout' ],
	[ 'a prompt that is never answered', 'text done; no-answer', 'failed', 'inactivity_timeout' ],
	[ 'a slow agent that shows life', 'text 1; sleep 2; text 2; sleep 2; text 3; sleep 2; text 4', 'completed', undef, { text => qr/1234/ } ],
	[ 'a time-out', 'text 1; sleep 60', 'failed', 'timeout', { run => { timeout => '2 s' } } ],
	[ 'exit before the answer', 'text bye; exit 0', 'failed', 'agent_exited', { text => qr/bye/ } ],
	[ 'exit with a status', 'stderr last words; exit 3', 'failed', 'agent_exited', { error => qr/last words/ } ],
	[ 'exit within a line', 'exit-mid-line', 'failed', 'agent_exited' ],
	[ 'a signal', 'die KILL', 'failed', 'agent_exited|killed_by_signal', { error => qr/signal 9/ } ],
	# in the sandbox bubblewrap itself keeps the pipe open, so that its end does not show
	[ 'stdout closed', 'text bye; close-stdout; sleep 60', 'failed', 'agent_exited|inactivity_timeout' ],
	[ 'stop reason max_tokens', 'stop max_tokens', 'failed', 'max_tokens' ],
	[ 'stop reason max_turn_requests', 'stop max_turn_requests', 'failed', 'max_turn_requests' ],
	[ 'stop reason refusal', 'stop refusal', 'failed', 'refusal' ],
	[ 'stop reason cancelled without a cancel', 'stop cancelled', 'cancelled', 'cancelled' ],
	[ 'a stop reason nobody knows', 'stop tired', 'failed', 'protocol_error', { error => qr/tired/ } ],
	[ 'no stop reason', 'stop -', 'failed', 'protocol_error' ],
	[ 'an error of the agent', 'error -32603 it broke', 'failed', 'agent_error', { error => qr/it broke/ } ],
	[ 'authentication wanted', 'error -32000 sign in', 'failed', 'auth_required', { error => qr/sign in/i } ],
	[ 'an answer to nothing', 'raw {"jsonrpc":"2.0","id":999,"result":{}}; text after', 'completed', undef, { text => qr/after/ } ],
	[ 'another session', 'raw {"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"other","update":{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"foreign"}}}}; text own',
		'completed', undef, { text => qr/^own$/ } ],
	[ 'a chunk behind the answer', 'text first; late too late', 'completed', undef, { text => qr/^first$/ } ],
	[ 'silence instead of initialize', 'text x', 'failed', 'handshake_timeout', { args => ['--init=silence'] } ],
	[ 'exit instead of initialize', 'text x', 'failed', 'agent_exited', { args => ['--init=exit'] } ],
	[ 'initialize wants authentication', 'text x', 'failed', 'auth_required', { args => ['--init=auth'] } ],
	[ 'another protocol version', 'text x', 'failed', 'protocol_mismatch', { args => ['--init=v2'] } ],
	[ 'initialize fails', 'text x', 'failed', 'agent_error', { args => ['--init=error'] } ],
	[ 'initialize answered by junk', 'text x', 'failed', 'handshake_timeout', { args => ['--init=junk'] } ],
	[ 'silence instead of session/new', 'text x', 'failed', 'handshake_timeout', { args => ['--new=silence'] } ],
	[ 'exit instead of session/new', 'text x', 'failed', 'agent_exited', { args => ['--new=exit'] } ],
	[ 'session/new wants authentication', 'text x', 'failed', 'auth_required', { args => ['--new=auth'] } ],
	[ 'session/new fails', 'text x', 'failed', 'agent_error', { args => ['--new=error'] } ],
	[ 'a session without an id', 'text x', 'failed', 'protocol_error', { args => ['--new=no-id'] } ],
	[ 'an agent without a name', 'text x', 'completed', undef, { args => ['--name=-'] } ],
	[ 'an agent that will not end', 'text x', 'completed', undef, { args => [ '--ignore-term', '--ignore-eof' ] } ],
	[ 'a grandchild in its own session', 'grandchild 600; text x', 'completed', undef ],
	[ 'model and mode by options', 'text x', 'completed', undef, { args => [ '--config', '--log=received' ],
		run => { model => 'fake-2', mode => 'auto' }, check => sub {
			my $log = sql($node, "SELECT boocoder.diff($_[0])");
			like($log, qr/set_config_option.*fake-2/, 'the model is chosen');
			like($log, qr/set_config_option.*auto/, 'and the mode') } } ],
	[ 'model and mode the older way', 'text x', 'completed', undef, { args => ['--log=received'],
		run => { model => 'fake-2', mode => 'auto' }, check => sub {
			my $log = sql($node, "SELECT boocoder.diff($_[0])");
			like($log, qr/session\/set_model.*fake-2/, 'the model is chosen');
			like($log, qr/session\/set_mode.*auto/, 'and the mode') } } ],
	[ 'a model the agent has not', 'text x', 'failed', 'agent_error', { run => { model => 'fake-99' }, error => qr/fake-99/ } ],
	[ 'permission asked, policy allow', 'ask', 'completed', undef, { text => qr/"optionId":"opt-1-allow_once"/,
		check => sub { is(sql($node, "SELECT count(*) FROM boocoder.message_parts WHERE task_id = $_[0] AND kind = 'permission'"), '1',
			'the permission is a part') } } ],
	[ 'five permissions at once', 'ask-many 5', 'completed', undef, { text => qr/(?:permission: [^\n]*allow_once[^\n]*\n?){5}/ } ],
	[ 'request ids of every form', 'id string; ask; id huge; ask; id negative; ask; id null; ask; text end', 'completed', undef,
		{ text => qr/(?:permission: [^\n]*allow_once[^\n]*\n){4}end/ } ],
	[ 'a request we do not serve', 'request terminal/create; text end', 'completed', undef, { text => qr/terminal\/create: error -32601/ } ],
	[ 'reading a file of the worktree', 'fs-read hello.txt', 'completed', undef, { text => qr/"content":"hello\\n"/ } ],
	[ 'writing a file of the worktree', 'fs-write sub/dir/new.txt content', 'completed', undef,
		{ check => sub { is(changed($_[0]), 'add sub/dir/new.txt', 'it is among the changes') } } ],
	[ 'reading outside', 'fs-read /etc/passwd; fs-read ../../x; symlink /etc evil; fs-read evil/passwd', 'completed', undef,
		{ text => qr/^(?:fs\/read_text_file: error[^\n]*\n){3}$/ } ],
	[ 'writing outside', "fs-write $scratch/escaped x; fs-write ../escaped x; symlink $scratch out; fs-write out/escaped x; fs-write .git/config x; fs-write .git x",
		'completed', undef, { text => qr/^(?:fs\/write_text_file: error[^\n]*\n){5}$/ } ],
	[ 'descriptors', 'fds', 'completed', undef, { text => qr/^fds=0,1,2$/ } ],
	[ 'the working directory', 'cwd', 'completed', undef, { text => qr/^cwd=\Q@{[worktree_root($node)]}\E\/\S+$/ } ],
	[ 'usage of a turn', 'usage 10 1000 0.01; usage 20 1000 0.03; turn-usage 100 20 5', 'completed', undef, { check => sub {
		my $row = sql_row($node, "SELECT count(*) AS n, sum(input_tokens) AS i, sum(output_tokens) AS o, sum(cached_tokens) AS c, sum(cost_usd) AS usd"
			. " FROM boocoder.usage_events WHERE task_id = $_[0]");
		is(json->encode($row), json->encode({ n => 1, i => 100, o => 20, c => 5, usd => 0.03 }),
			'one row in the ledger; reports that go on are not added up') } } ],
	[ 'every kind of change', "write new.txt new; append hello.txt more; rename README RENAMED; binary b.bin 999; symlink hello.txt link; mkdir d; write d/f x",
		'completed', undef, { check => sub { is(changed($_[0]),
			'rename RENAMED, add b.bin, add d/f, modify hello.txt, add link, add new.txt', 'they wait') } } ],
	[ 'every kind of update', 'think first; tool t1 One; tool-bare t2 Two; tool-start t3 Three; tool-update t3 half; plan a|b|c; commands x,y; mode auto; config m=v; info A title; usage 1 2; image; text end',
		'completed', undef, { text => qr/^end$/, check => \&every_kind } ],
);

sub events_json { return json->encode([ events_of($node, @_) ]) }

sub changed
{
	my ($task) = @_;
	return sql($node, "SELECT string_agg(kind || ' ' || path, ', ' ORDER BY path COLLATE \"C\") FROM boocoder.pending_changes WHERE task_id = $task");
}

sub every_kind
{
	my ($task) = @_;
	my %events = map { $_->{kind} => 1 } events_of($node, $task);
	ok($events{$_}, "an event $_") for qw(text reasoning tool_call plan command mode config session_info usage status raw);
	my @parts = sql_rows($node, "SELECT p.kind, p.payload FROM boocoder.message_parts p JOIN boocoder.messages m ON m.id = p.message_id"
		. " WHERE p.task_id = $task AND m.role = 'assistant' ORDER BY p.seq");
	my %parts;
	push @{ $parts{ $_->{kind} } }, $_->{payload} for @parts;
	is($parts{reasoning}[0]{text}, 'first', 'the thoughts are a part');
	is(scalar(@{ $parts{tool_call} // [] }), 3, 'each tool call is one part');
	my ($one) = grep { $_->{id} eq 't1' } @{ $parts{tool_call} };
	is("$one->{title} $one->{status}", 'One completed', 'with its title and last status');
	ok(defined $one->{started_ms} && defined $one->{ended_ms}, 'and its times');
	is(scalar(@{ $parts{plan}[0]{entries} }), 3, 'the plan is a part');
}

my @tasks = map { run_task($node, encode('UTF-8', $_->[1]), 'demo', agent => fake(@{ $_->[4]{args} // [] }), %{ $_->[4]{run} // {} }) } @cases;
for my $i (0 .. $#cases)
{
	my ($name, $prompt, $state, $reason, $more) = @{ $cases[$i] };
	my $task = $tasks[$i];
	settles($node, $task, $state, $name, 180) or next;
	my $row = task_row($node, $task);
	if (defined $reason)
	{
		like($row->{failure_reason} // '', qr/^(?:$reason)$/, "$name: reason");
		ok(length($row->{error} // ''), "$name: and words for a person") if $state eq 'failed';
	}
	my $text = decode('UTF-8', text_of($node, $task));
	like($text, $more->{text}, "$name: text") if $more->{text};
	like($row->{error} // '', $more->{error}, "$name: error") if $more->{error};
	subtest("$name: more", sub { $more->{check}->($task) }) if $more->{check};
}
ok(!-e "$scratch/escaped", 'nothing was written outside of a worktree');
ok(none_left($node), 'no agent process is left');

# ---- policy reject ----

my $strict = fake('--name=strict');
sql($node, "UPDATE boocoder.providers SET permission_policy = 'reject' WHERE name = '$strict'");
my $task = run_task($node, 'ask; ask allow_once,allow_always', 'demo', agent => $strict);
settles($node, $task, 'completed', 'permission asked, policy reject');
like(text_of($node, $task), qr/opt-2-reject_once.*"outcome":"cancelled"/s, 'the rejecting option, or cancelled when there is none');

# ---- gemini reads what it is about to make, and understands no error ----

$task = run_task($node, 'fs-read nowhere.txt', 'demo', agent => fake());
settles($node, $task, 'completed', 'a file that is not there');
like(text_of($node, $task), qr/Resource not found/, 'is an error, in the words of the protocol');
$task = run_task($node, 'fs-read nowhere.txt', 'demo', agent => fake('--name=gemini-cli'));
settles($node, $task, 'completed', 'the same for gemini');
like(text_of($node, $task), qr/"content":""/, 'is an empty one');

# ---- cancel, by what the agent makes of it ----

for my $manner ('on-cancel cancelled; text up; sleep 60', 'on-cancel ignore; text up; sleep 60', 'on-cancel error; text up; sleep 60',
	'on-cancel end_turn; text up; sleep 60', 'text up; hang', 'text up; busy 60', 'grandchild 600; text up; on-cancel ignore; silence')
{
	my $task = run_task($node, $manner, 'demo', agent => fake());
	ok(until_true(sub { said_so_far($node, $task) =~ /up/ }), "$manner: under way") or explain_task($node, $task);
	sql($node, "SELECT boocoder.cancel($task)");
	settles($node, $task, 'cancelled', "$manner: cancelled", 8);
	is(task_row($node, $task)->{failure_reason}, 'cancelled', "$manner: reason");
	ok(none_left($node), "$manner: no process is left");
}
$task = run_task($node, 'text x', 'demo', agent => fake('--init=silence'));
ok(until_true(sub { events_json($task, 'status') =~ /spawned/ }), 'an agent that does not answer initialize');
sql($node, "SELECT boocoder.cancel($task)");
settles($node, $task, 'cancelled', 'is cancelled', 8);

# ---- back-pressure: a runner does not grow with what its agent says ----

$task = run_task($node, 'flood 400000 256', 'demo', agent => fake());
my $most = 0;
my $done = until_true(sub {
	for my $runner (runner_pids(dispatcher_pid($node)))
	{
		my ($kb) = (eval { slurp("/proc/$runner->{pid}/status") } // '') =~ /^VmHWM:\s+(\d+) kB/m;
		$most = $kb if defined $kb && $kb > $most;
	}
	task_state($node, $task) =~ /completed|failed/ }, 180);
ok($done, 'a flood of 100 MB ends');
is(task_state($node, $task), 'completed', 'well') or explain_task($node, $task);
cmp_ok($most, '<', 100 * 1024, "the runner's memory stayed bounded ($most kB)");

# ---- the ledger over several turns ----

sql($node, "SELECT count(*) FROM boocoder.cost_stats('$_')") for qw(project agent model day);
is(sql($node, "SELECT cost_usd FROM boocoder.cost_stats('project') WHERE key = 'demo'"),
	sql($node, 'SELECT sum(cost_usd) FROM boocoder.usage_events'), 'cost_stats is the sum of the ledger');
like(sql_error($node, "SELECT boocoder.cost_stats('color')"), qr/ERROR/, 'and knows its groups');

is(sql($node, q{SELECT count(*) FROM boocoder.tasks WHERE state IN ('running', 'pending')}), '0', 'nothing is left over');
is(sql($node, q{SELECT count(*) FROM boocoder.messages WHERE status = 'streaming'}), '0', 'no message streams any more');
$node->stop('fast');
done_testing();
