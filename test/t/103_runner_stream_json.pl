# SPDX-License-Identifier: PostgreSQL
#
# The transports stream_json and opencode, with the runner alone: programs that write one JSON object a line, in the ways
# of six known ones (test/agents/fake-stream). How the prompt gets in, what becomes of what they say, whether the outcome
# tells the truth, and permissions over claude's control protocol.
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
use Test::More;
use Time::HiRes qw(time usleep);

my $program = BoocoderRunner::program();
plan skip_all => 'there is no runner; set BOOCODER_RUNNER' unless defined $program && -x $program;

my $scratch = abs_path(tempdir('boocoder-stream-XXXXXX', DIR => '/var/tmp', CLEANUP => 1));
my $worktree = "$scratch/worktree";
mkdir $worktree;
my $fake = abs_path("$FindBin::RealBin/../agents/fake-stream");
my $json = JSON::PP->new->canonical;
my @dialects = qw(claude codex pi gemini goose opencode);

# ---- turns ----

sub fake { my ($dialect, @more) = @_; return [ '/usr/bin/perl', $fake, "--dialect=$dialect", @more ] }

# begin(DIALECT, PROMPT, OPTION => VALUE ...): "more" are arguments of the agent, "limits" are added to the defaults
sub begin
{
	my ($dialect, $prompt, %option) = @_;
	my $limits = delete $option{limits} // {};
	my $more = delete $option{more} // [];
	my $runner = BoocoderRunner->start;

	$runner->order({
		role => 'agent', task_id => 42, cwd => $worktree, input => $prompt, command => fake($dialect, @$more),
		transport => $dialect eq 'opencode' ? 'opencode' : 'stream_json', agent_kind => undef,
		env => {}, setup => [], setup_timeout_ms => 10_000,
		sandbox => {
			mode => 'off', ro_paths => [], hide => [], home => "$scratch/home",
			agent_path => '/usr/local/bin:/usr/bin:/bin', network => JSON::PP::true
		},
		limits => {
			timeout_ms => 0, inactivity_ms => 0, handshake_ms => 10_000, cancel_grace_ms => 500, term_grace_ms => 300,
			max_line => 1024 * 1024, %$limits
		},
		%option });
	return $runner;
}

sub turn
{
	my ($dialect, $prompt, %option) = @_;
	my $seconds = delete $option{seconds} // 20;
	my $began = time;
	my $runner = begin($dialect, $prompt, %option);

	$runner->result($seconds);
	$runner->{took} = time - $began;
	$runner->{result} //= {};
	return $runner;
}

sub ends
{
	my ($runner, $outcome, $reason, $name) = @_;
	my $result = $runner->{result} // {};
	my $is = join ' ', map { $_ // '-' } @$result{qw(outcome reason)};

	is($is, join(' ', $outcome, $reason // '-'), "$name: $outcome" . ($reason ? ", $reason" : ''))
	  or diag($json->pretty->encode({ map { $_ => substr $result->{$_} // '-', 0, 500 } keys %$result }));
	is($runner->gone(3), 0, "$name: the runner has ended");
}

sub events { my ($runner, $kind) = @_; return map { $_->{payload} } grep { $_->{kind} eq $kind } @{ $runner->{events} } }
sub parts { my ($runner, $kind) = @_; return map { $_->{payload} } grep { $_->{kind} eq $kind } @{ $runner->{parts} } }
sub shape { my ($value) = @_; return $json->canonical->encode($value) }

sub answer
{
	my ($runner, %answer) = @_;
	return $runner->write_raw(BoocoderRunner::frame(3, $runner->{turn}, $json->encode(\%answer)));
}

# Waits until so many events of that kind are there.
sub until_events
{
	my ($runner, $kind, $n) = @_;
	return $runner->follow(sub { my @have = events($runner, $kind); @have >= ($n // 1) }, 10);
}

sub processes
{
	my ($marker) = @_;
	my $has = sub { open my $file, '<:raw', $_[0] or return 0; local $/; return index(<$file> // '', $marker) >= 0 };
	return grep { $has->($_) } glob '/proc/[0-9]*/cmdline';
}

# ---- what they say, in every dialect ----

my %own = (    # what is not the same everywhere
	gemini => { thoughts => 0 },
	pi => { cost => 0.125 },
	opencode => { cost => 0.125, session => 1 },
	claude => { cost => 0.25 },
	goose => { cached => 0 },
);

for my $dialect (@dialects)
{
	my $own = $own{$dialect} // {};
	my $runner = turn($dialect, 'think Hmm.;text Working.;tool t1 Write /w/a b;write seen.txt by the agent;usage 1600 100 400;text Done w\xc3\xb6rld.',
		model => 'given');
	ends($runner, 'completed', undef, $dialect);
	is_deeply([ map { $_->{text} } parts($runner, 'text') ], [ 'Working.', "Done w\x{f6}rld." ], "$dialect: text, once");
	is_deeply([ map { $_->{text} } parts($runner, 'reasoning') ], [ $dialect eq 'gemini' ? () : 'Hmm.' ], "$dialect: reasoning, once");
	is($runner->text, "Working.Done w\x{f6}rld.", "$dialect: and as it came");
	is($runner->{result}{summary}, "Done w\x{f6}rld.", "$dialect: summary");
	my ($call) = parts($runner, 'tool_call');
	is($call->{id}, 't1', "$dialect: a call of a tool");
	is($call->{kind}, 'edit', "$dialect: its kind");
	is($call->{status}, 'completed', "$dialect: its status");
	ok($call->{ended_ms} >= $call->{started_ms}, "$dialect: its times");
	like(shape($call->{locations}), qr{/w/a b}, "$dialect: its place");
	my $usage = $runner->{result}{usage};
	is("$usage->{input_tokens} $usage->{output_tokens} $usage->{cached_tokens}", '1600 100 ' . ($own->{cached} // 400), "$dialect: usage");
	is($usage->{cost_usd}, $own->{cost}, "$dialect: cost") or diag(shape($usage));
	ok(!exists $usage->{cost_total_usd}, "$dialect: of the turn, not of the session");
	is_deeply([ parts($runner, 'usage') ], [$usage], "$dialect: usage as a part");
	like($runner->{result}{agent_session_id} // '-', $dialect eq 'goose' ? qr/^-$/ : qr/^fake-\d+$/, "$dialect: session");
	is($runner->{result}{transport}, $dialect eq 'opencode' ? 'opencode' : 'stream_json', "$dialect: transport");
	is($runner->{result}{junk_lines}, 0, "$dialect: no junk");
	ok(-s "$worktree/seen.txt", "$dialect: it works in its worktree");
	unlink "$worktree/seen.txt";

	$runner = turn($dialect, 'text Some text;usage 7 5 0;fail the model is gone');
	ends($runner, 'failed', 'agent_error', "$dialect, failure of the model");
	like($runner->{result}{message}, qr/the model is gone/, "$dialect: says why");
	is($runner->{result}{usage}{input_tokens}, $dialect =~ /claude|pi|opencode/ ? 7 : undef, "$dialect: what it used until then");

	for my $case ([ auth_required => '401 Unauthorized' ], [ rate_limited => '429 Too Many Requests' ], [ context_exceeded => 'prompt is too long' ])
	{
		my ($reason, $words) = @$case;
		$runner = turn($dialect, "fail $words");
		ends($runner, 'failed', $reason, "$dialect, $words");
	}
	$runner = turn($dialect, 'stderr not logged in;exit 1');
	ends($runner, 'failed', 'auth_required', "$dialect, not signed in");
	like($runner->{result}{hint}, qr/Sign the agent in/, "$dialect: says what to do");

	$runner = turn($dialect, 'text Half;stderr out of luck;exit 3');
	ends($runner, 'failed', 'agent_exited', "$dialect, exit 3");
	like($runner->{result}{message}, qr/status 3.*out of luck/, "$dialect: says so");
	$runner = turn($dialect, 'text Half;die 9');
	ends($runner, 'failed', 'agent_exited', "$dialect, kill -9");
	is($runner->{result}{signal}, 9, "$dialect: its signal");
	is(join('', map { $_->{text} } parts($runner, 'text')), 'Half', "$dialect: its text is kept");
	$runner = turn($dialect, 'tool-start t1 Write /w/a;exit 0');
	is($runner->{result}{outcome}, 'failed', "$dialect: an exit in the middle of it is no success");

	# Once more, now that its program is known
	$runner = turn($dialect, 'echo this', agent_kind => $dialect);
	ends($runner, 'completed', undef, "$dialect, known by its program");
	is($runner->part_text, 'echo this', "$dialect: understood");
}

# ---- text that is sent again ----

for my $dialect (qw(claude pi))
{
	my @half = $dialect eq 'claude'
	  ? ('{"type":"stream_event","event":{"type":"message_start","message":{"id":"x"}}}',
		'{"type":"stream_event","event":{"type":"content_block_delta","delta":{"type":"text_delta","text":"Half an ans"}}}')
	  : ('{"type":"message_start","message":{"role":"assistant","responseId":"x"}}',
		'{"type":"message_update","assistantMessageEvent":{"type":"text_delta","delta":"Half an ans"}}');
	my $runner = turn($dialect, join ';', (map { "line $_" } @half), 'retry overloaded', 'text Half an answer.');
	ends($runner, 'completed', undef, "$dialect, a text in two attempts");
	is($runner->part_text, 'Half an answer.', "$dialect: is stored once");
	is_deeply([ events($runner, 'retry') ], [ { message => 'overloaded' } ], "$dialect: and the retry is an event");
}
{
	my $runner = turn('codex', 'retry overloaded;text Fine.');
	ends($runner, 'completed', undef, 'codex, a retry');
	like((events($runner, 'retry'))[0]{message}, qr/overloaded/, 'codex: is an event');
}
{
	# qwen tells nothing of it, and gives both as one message
	my @said = map {
		map { qq(line {"type":"stream_event","event":{"type":"content_block_delta","delta":{"type":"text_delta","text":"$_"}}}) } @$_
	} [ 'I look at the long ', 'file first, and' ], [ 'I look at the long ', 'file first, and then ', 'mend it.' ];
	my $begin = 'line {"type":"stream_event","event":{"type":"message_start","message":{"id":"x"}}}';
	my $whole = 'line {"type":"assistant","message":{"id":"x","content":[{"type":"text","text":"I look at the long file first, andI look at the long file first, and then mend it."}]}}';
	for my $kind (qw(qwen claude))
	{
		my $runner = turn('claude', join(';', $begin, @said, $whole), agent_kind => $kind);
		ends($runner, 'completed', undef, "$kind, a text that is said again without a word");
		my $text = 'I look at the long file first, and then mend it.';
		is($runner->part_text, $kind eq 'qwen' ? $text : "I look at the long file first, and$text", "$kind: is stored once where that is known");
		is(scalar(events($runner, 'retry')), $kind eq 'qwen' ? 1 : 0, "$kind: and told");
	}
}

# ---- how the prompt and the model get in ----

{
	my $prompt = q{a b "c" 'd' $(e) --f};
	my $runner = turn('claude', $prompt, more => ['{prompt}']);
	is($runner->part_text, $prompt, 'a prompt as an argument is what it was');
	is(turn('claude', '--help', more => ['{prompt}'])->part_text, ' --help', 'and is no option');
	is(turn('claude', $prompt)->part_text, $prompt, 'on standard input, too');
	is(turn('codex', $prompt, more => ['-'])->part_text, $prompt, 'and with a dash');
	my $long = 'x' x 150_000;
	is(length turn('claude', $long, more => ['{prompt}'])->part_text, length $long, 'one too long for an argument is on standard input');

	my $args = sub { return JSON::PP->new->decode(turn('claude', 'args', @_)->part_text) };
	my @command = (more => [ '-v', '--model', '{model}', '--mode', '{mode}', '-' ]);
	is_deeply($args->(@command, model => 'a/b'), [ '--dialect=claude', '-v', '--model', 'a/b', '-' ], 'the model is filled in, the mode is left out');
	is_deeply($args->(@command), [ '--dialect=claude', '-v', '-' ], 'both are left out');
	is_deeply($args->(@command, model => '--yolo', mode => 'plan'), [ '--dialect=claude', '-v', '--mode', 'plan', '-' ], 'a model is no option');
}

# ---- endings ----

{
	my $runner = turn('opencode', 'line {"type":"tool_use","sessionID":"s","part":{"tool":"bash","callID":"c","state":{"status":"error","error":"The user rejected permission to use this specific tool call."}}};'
		  . 'usage 1 1 0;stderr permission requested: bash (rm)\\; auto-rejecting;exit 0');
	ends($runner, 'failed', 'permission_rejected', 'opencode without --auto');
	$runner = turn('goose', 'stderr Error: Tool approval required in non-interactive mode;exit 1', agent_kind => 'goose');
	ends($runner, 'failed', 'permission_rejected', 'goose in approve mode');
	$runner = turn('claude', 'line {"type":"result","subtype":"error_max_turns","is_error":true,"session_id":"s"}');
	ends($runner, 'failed', 'max_turn_requests', 'claude at its limit of turns');
	$runner = turn('pi', 'line {"type":"message_end","message":{"role":"assistant","stopReason":"length"}};line {"type":"agent_settled"}');
	ends($runner, 'failed', 'max_tokens', 'pi at its limit of tokens');
	$runner = turn('pi', 'line {"type":"agent_end","willRetry":true};retry x;text Second;exit 0');
	ends($runner, 'completed', undef, 'pi of a version that does not say it has settled');

	$runner = turn('claude', 'text Done.;linger 60');
	ends($runner, 'completed', undef, 'one that does not go when it is done');
	cmp_ok($runner->{took}, '<', 4, 'the turn ends without it');
	$runner = turn('claude', 'grandchild 60;text Done.');
	ends($runner, 'completed', undef, 'a grandchild that holds standard output');
	cmp_ok($runner->{took}, '<', 4, 'the turn ends without it, too');
	$runner = turn('claude', 'text Half;close-stdout');
	ends($runner, 'failed', 'agent_exited', 'one that closes its output');
	$runner = turn('claude', 'text Hi', command => [ '/bin/sh', '-c', 'echo hello; echo "{\"level\":\"info\"}"; echo unknown option >&2; exit 2' ]);
	ends($runner, 'failed', 'agent_exited', 'a program that is none of them');
	like($runner->{result}{message}, qr/unknown option/, 'says what it said');
	is($runner->{result}{junk_lines}, 2, 'and how many lines were not understood');
}

# ---- silence and cancel ----

{
	my $runner = turn('claude', 'text Hm.;silence', limits => { inactivity_ms => 700 });
	ends($runner, 'failed', 'inactivity_timeout', 'silence');
	for my $case ([ claude => 'tool-start t Bash /w' ], [ opencode => 'text still in a step' ])
	{
		my ($dialect, $prompt) = @$case;
		$runner = turn($dialect, "$prompt;sleep 2;text Late", limits => { inactivity_ms => 700 });
		ends($runner, 'completed', undef, "$dialect, silence while a tool runs");
	}
	$runner = turn('claude', 'silence', limits => { timeout_ms => 700 });
	ends($runner, 'failed', 'timeout', 'a timeout');

	for my $prompt ('text up;silence', 'text up;deaf;grandchild 60;silence')
	{
		for my $dialect (qw(claude opencode))
		{
			my $marker = "mark-$$-" . int rand 1e9;
			$runner = begin($dialect, $prompt, more => ["--marker=$marker"]);
			ok($runner->follow(sub { $runner->text =~ /up/ }, 10), "$dialect, $prompt: is up");
			my $asked = time;
			$runner->cancel;
			$runner->result(10);
			ends($runner, 'cancelled', 'cancelled', "$dialect, $prompt");
			cmp_ok(time - $asked, '<', 3, "$dialect, $prompt: soon");
			is(scalar processes($marker), 0, "$dialect, $prompt: nothing is left");
		}
	}
}

# ---- bad manners ----

for my $dialect (@dialects)
{
	my $runner = turn($dialect, 'junk some banner;junk {"broken;split 7;nul;bad-utf8;surrogates;text S\xc3\xbc\xc3\x9f;deep 3000;stderr x;text End');
	ends($runner, 'completed', undef, "$dialect, junk and split lines");
	my $text = $runner->part_text;
	like($text, qr/a\x{fffd}b.*a\x{fffd}+b.*a\x{fffd}b.*S\x{fc}\x{df}.*End/s, "$dialect: its text is repaired")
	  or diag(shape([$text]));
	is($runner->{result}{junk_lines}, 4, "$dialect: junk is counted");

	$runner = turn($dialect, 'giant 3;text Small', limits => { max_line => 8 * 1024 * 1024 });
	ends($runner, 'completed', undef, "$dialect, a giant text");
	is(length $runner->part_text, 3 * 1024 * 1024 + 5, "$dialect: is there");
	$runner = turn($dialect, 'text x;giant-line 3;text y');
	ends($runner, 'failed', 'line_too_long', "$dialect, a giant line");
}
{
	my $runner = begin('gemini', 'flood 100000');
	$runner->result(60);
	ends($runner, 'completed', undef, 'a flood');
	is(length $runner->part_text, 800_000, 'gets through');
	$runner = turn('claude', 'text Last words;line {"type":"result","subtype":"success","is_error":false};text Late');
	is($runner->part_text, 'Last words', 'what comes behind the end does not count');
	$runner = turn('claude', 'line {"type":"novelty","x":1};line {"type":"system","subtype":"news"}');
	is_deeply([ events($runner, 'raw') ], [ { type => 'novelty', x => 1 }, { type => 'system', subtype => 'news' } ], 'what is not understood is kept');
}

# ---- permissions ----

my @control = (more => [ '--input-format', 'stream-json', '--permission-prompt-tool', 'stdio' ]);

{
	my $runner = begin('claude', 'ask w1 Write /w/a;text Done.', @control);
	ok(until_events($runner, 'permission_request'), 'a permission is asked for');
	is_deeply((events($runner, 'permission_request'))[0], {
		request => '1', kind => 'permission', message => undef, schema => undef,
		tool_call => { id => 'w1', title => 'Write /w/a', kind => 'edit', status => 'pending', raw_input => { file_path => '/w/a' }, locations => [ { path => '/w/a' } ] },
		options => [ { optionId => 'allow', name => 'Allow', kind => 'allow_once' }, { optionId => 'reject', name => 'Reject', kind => 'reject_once' } ],
	}, 'with all there is to know');
	answer($runner, request => 'nonsense', option => 'allow');
	answer($runner, request => '1', option => 'allow', rule => 'a rule');
	$runner->result(10);
	ends($runner, 'completed', undef, 'permission allowed');
	like($runner->part_text, qr/^w1: \{"behavior":"allow","updatedInput":\{"file_path":"\/w\/a"\}\}/, 'the agent hears it');
	my ($record) = parts($runner, 'permission');
	is_deeply([ @$record{qw(key outcome option rule)}, $record->{request}{tool_call}{id} ], [ '1', 'selected', 'allow', 'a rule', 'w1' ], 'it is recorded');
	is_deeply([ events($runner, 'permission') ], [$record], 'as an event, too');
	is_deeply([ events($runner, 'command') ], [ { commands => [ { name => 'review', description => 'looks', hint => '[what]' } ] } ], 'commands, once');
	is_deeply((events($runner, 'models'))[0], { models => [ { id => 'm1', name => 'One' } ], current => undef }, 'models');

	$runner = begin('claude', 'ask w1 Write /w/a', @control);
	until_events($runner, 'permission_request');
	answer($runner, request => '1', option => 'reject');
	$runner->result(10);
	ends($runner, 'completed', undef, 'permission rejected');
	like($runner->part_text, qr/"behavior":"deny"/, 'the agent hears that');
	is((parts($runner, 'permission'))[0]{option}, 'reject', 'and it is recorded');

	$runner = begin('claude', 'ask w1 Write /w/a', @control);
	until_events($runner, 'permission_request');
	answer($runner, request => '1', option => undef);
	$runner->result(10);
	like($runner->part_text, qr/"behavior":"deny"/, 'no answer is a no');
	is((parts($runner, 'permission'))[0]{outcome}, 'cancelled', 'recorded as cancelled');

	$runner = begin('claude', 'ask-many 3;text Done.', @control);
	ok(until_events($runner, 'permission_request', 3), 'several at once');
	answer($runner, request => $_, option => $_ eq '2' ? 'reject' : 'allow') for qw(3 1 2);
	$runner->result(10);
	ends($runner, 'completed', undef, 'several permissions');
	is(join(' ', $runner->part_text =~ /many(\d): \{"behavior":"(\w+)"/g), '1 allow 2 deny 3 allow', 'each gets its own answer');

	$runner = begin('claude', 'withdraw w1;text Done.', @control);
	ok(until_events($runner, 'permission_withdrawn'), 'a permission is withdrawn');
	is_deeply([ events($runner, 'permission_withdrawn') ], [ { request => '1' } ], 'by its key');
	answer($runner, request => '1', option => 'allow');
	$runner->result(10);
	ends($runner, 'completed', undef, 'permission withdrawn');
	is_deeply([ parts($runner, 'permission') ], [], 'nothing is recorded');

	# The limits of time stand still.
	$runner = begin('claude', 'ask w1 Write /w/a;text Done.', @control, limits => { timeout_ms => 1500, inactivity_ms => 500 });
	until_events($runner, 'permission_request');
	$runner->follow(sub { 0 }, 2.5);
	answer($runner, request => '1', option => 'allow');
	$runner->result(10);
	ends($runner, 'completed', undef, 'a person who takes longer than the limits');

	$runner = begin('claude', 'ask-many 2;text not reached', @control);
	until_events($runner, 'permission_request', 2);
	$runner->cancel;
	$runner->result(10);
	ends($runner, 'cancelled', 'cancelled', 'cancel while permissions are pending');
	is(join(' ', map { $_->{outcome} } parts($runner, 'permission')), 'cancelled cancelled', 'all are answered');
	unlike($runner->part_text, qr/not reached/, 'and the turn ends');

	my $began = time;
	$runner = begin('claude', 'text up;silence', @control);
	$runner->follow(sub { $runner->text =~ /up/ }, 10);
	$runner->cancel;
	$runner->result(10);
	ends($runner, 'cancelled', 'cancelled', 'cancel by an interrupt');
	ok($runner->{result}{usage}, 'and what it used is known');
	$runner = begin('claude', 'text up;deaf;silence', @control);
	$runner->follow(sub { $runner->text =~ /up/ }, 10);
	$runner->cancel;
	$runner->result(10);
	ends($runner, 'cancelled', 'cancelled', 'cancel of one that does not hear it');
}

# ---- modes ----

{
	my $runner = begin('claude', 'text up;sleep 1;text Done.', @control);
	$runner->follow(sub { $runner->text =~ /up/ }, 10);
	answer($runner, mode => 'plan', request => 'm1');
	answer($runner, mode => 'refused', request => 'm2');
	$runner->result(10);
	ends($runner, 'completed', undef, 'modes');
	is_deeply([ events($runner, 'mode') ], [ { mode => 'default' }, { mode => 'plan', request => 'm1' } ], 'one is set');
	is_deeply([ events($runner, 'mode_failed') ], [ { mode => 'refused', request => 'm2', message => 'no such mode' } ], 'one is refused');

	$runner = begin('codex', 'text up;sleep 1');
	$runner->follow(sub { $runner->text =~ /up/ }, 10);
	answer($runner, mode => 'plan', request => 'm1');
	$runner->result(10);
	is((events($runner, 'mode_failed'))[0]{request}, 'm1', 'one that can change none refuses');
}

done_testing();
