# SPDX-License-Identifier: PostgreSQL
#
# The role "server" and the transport "opencode_server", with runners alone: a server of opencode's kind is started, looked
# after and ended, and chats on it have their turns. Most of it with test/agents/fake-opencode, which fails in all the ways
# it is told to; at the end with the real opencode.
#
# BOOCODER_RUNNER names another runner than the one built here.
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Temp qw(tempdir);
use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderRunner;
use IO::Socket::INET;
use JSON::PP ();
use Test::More;
use Time::HiRes qw(time usleep);

my $program = BoocoderRunner::program();
plan skip_all => 'there is no runner; set BOOCODER_RUNNER' unless defined $program && -x $program;

my $scratch = abs_path(tempdir('boocoder-serve-XXXXXX', DIR => '/var/tmp', CLEANUP => 1));
mkdir "$scratch/$_" for qw(worktrees worktrees/p1 worktrees/p1/one worktrees/p1/two state);
my $fake = abs_path("$FindBin::RealBin/../agents/fake-opencode");
my $json = JSON::PP->new->canonical;
my $turns = 0;

# ---- servers ----

sub spew { my ($path, $text) = @_; open my $file, '>', $path or die "$path: $!"; print $file $text; close $file }
sub slurp { my ($path) = @_; open my $file, '<', $path or return ''; local $/; return <$file> // '' }

# server(OPTION => VALUE ...): its runner; "limits" and "env" are added to the defaults
sub server
{
	my (%option) = @_;
	my %env = (FAKE_STATE => "$scratch/state", %{ delete $option{env} // {} });
	my $limits = delete $option{limits} // {};
	my $runner = BoocoderRunner->start;

	unlink "$scratch/state/health", "$scratch/state/slow";
	spew("$scratch/state/health", delete $option{health}) if $option{health};
	spew("$scratch/state/slow", delete $option{slow}) if $option{slow};
	$runner->order({
		role => 'server', agent_kind => 'opencode', provider => 'fake', cwd => "$scratch/worktrees/p1",
		command => [ '/usr/bin/perl', $fake, 'serve' ], env => \%env,
		sandbox => { mode => 'off', ro_paths => [], hide => [], home => "$scratch/home", agent_path => '/usr/local/bin:/usr/bin:/bin',
			network => JSON::PP::true },
		limits => { handshake_ms => 10_000, term_grace_ms => 300, health_interval_ms => 100, health_timeout_ms => 200, %$limits },
		%option }, turn => ++$turns);
	return $runner;
}

sub states { my ($runner, $state) = @_; return grep { $_->{state} eq $state } @{ $runner->{server} // [] } }

sub until_state
{
	my ($runner, $state, $seconds, $which) = @_;
	return $runner->follow(sub { my @have = grep { !$which || $which->($_) } states($runner, $state); $have[-1] }, $seconds // 10);
}

sub ready
{
	my ($runner) = @_;
	return until_state($runner, 'ready') // die 'the server is not ready: ' . $json->encode($runner->{result} // {});
}

sub address { my ($ready) = @_; return { map { $_ => $ready->{$_} } qw(url username password) } }

sub requests
{
	my ($pattern) = @_;
	return grep { "$_->{method} $_->{path}" =~ $pattern } map { $json->decode($_) } split /\n/, slurp("$scratch/state/log");
}

# A request of ours; the status.
sub ask
{
	my ($ready, $user, $password) = @_;
	my ($port) = $ready->{url} =~ /:(\d+)$/;
	my $socket = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port", Timeout => 5) or return 0;
	require MIME::Base64;
	print $socket "GET /global/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n",
	  defined $user ? 'Authorization: Basic ' . MIME::Base64::encode_base64("$user:$password", '') . "\r\n" : '', "\r\n";
	return (<$socket> // '') =~ m{^HTTP/1\.1 (\d+)} ? $1 : 0;
}

# ---- chats ----

# begin(SERVER, PROMPT, OPTION => VALUE ...): a turn; "runner" is one that was kept, "server" undef gives no address
sub begin
{
	my ($server, $prompt, %option) = @_;
	my $limits = delete $option{limits} // {};
	my $runner = delete $option{runner} // BoocoderRunner->start;

	$runner->order({
		role => 'agent', task_id => 42, cwd => "$scratch/worktrees/p1/one", input => $prompt, command => ['opencode'],
		transport => 'opencode_server', agent_kind => 'opencode', env => {}, setup => [], setup_timeout_ms => 10_000, warm => JSON::PP::true,
		sandbox => { mode => 'off', ro_paths => [], hide => [], home => "$scratch/home", agent_path => '/usr/bin:/bin', network => JSON::PP::true },
		limits => { timeout_ms => 0, inactivity_ms => 0, handshake_ms => 10_000, cancel_grace_ms => 3000, term_grace_ms => 300,
			max_line => 1024 * 1024, %$limits },
		%option }, turn => ++$turns);
	$runner->answer(server => address($server)) if $server && !$runner->{knows};
	$runner->{knows} = 1 if $server;
	return $runner;
}

sub turn
{
	my ($server, $prompt, %option) = @_;
	my $seconds = delete $option{seconds} // 15;
	my $began = time;
	my $runner = begin($server, $prompt, %option);

	$runner->result($seconds);
	$runner->{took} = time - $began;
	$runner->{result} //= {};
	return $runner;
}

sub ends
{
	my ($runner, $outcome, $reason, $name) = @_;
	my $result = $runner->{result} // {};

	is(join(' ', map { $_ // '-' } @$result{qw(outcome reason)}), join(' ', $outcome, $reason // '-'), "$name: $outcome" . ($reason ? ", $reason" : ''))
	  or diag($json->pretty->encode({ map { $_ => substr ref $result->{$_} ? $json->encode($result->{$_}) : $result->{$_} // '-', 0, 500 } keys %$result }));
}

sub events { my ($runner, $kind) = @_; return map { $_->{payload} } grep { $_->{kind} eq $kind } @{ $runner->{events} } }
sub parts { my ($runner, $kind) = @_; return map { $_->{payload} } grep { $_->{kind} eq $kind } @{ $runner->{parts} } }
sub texts { my ($runner) = @_; return [ map { $_->{text} } parts($runner, 'text') ] }

sub until_events
{
	my ($runner, $kind, $n) = @_;
	return $runner->follow(sub { my @have = events($runner, $kind); @have >= ($n // 1) }, 10);
}

# ======== the server ========

{
	my $runner = server();
	my $ready = ready($runner);

	like($ready->{url}, qr{^http://127\.0\.0\.1:\d+$}, 'a server: listens on loopback');
	like($ready->{password}, qr/^[0-9a-f]{48}$/, 'its password is long');
	is($ready->{version}, '0.fake', 'its version');
	my ($start) = (slurp("/proc/$ready->{pid}/stat") =~ s/.*\)//sr) =~ /^(?: \S+){19} (\d+)/;
	is($ready->{start_time}, $start, 'its process, and when that began');
	is(ask($ready), 401, 'nobody gets in without the password');
	is(ask($ready, 'opencode', 'guess'), 401, 'nor with another one');
	is(ask($ready, @$ready{qw(username password)}), 200, 'but with it');
	my @seen = grep { index(slurp($_), $ready->{password}) >= 0 } glob '/proc/[0-9]*/cmdline';
	is_deeply(\@seen, [], 'it is on no command line');
	until_state($runner, 'health');
	my ($health) = states($runner, 'health');
	ok($health->{ok}, 'it is looked after: healthy');
	cmp_ok($health->{ms}, '<', 200, 'and how long that took');

	spew("$scratch/state/health", 'bad');
	ok(until_state($runner, 'health', 5, sub { !$_[0]{ok} && $_[0]{status} == 200 }), 'it says it is not healthy: told');
	spew("$scratch/state/health", '500');
	ok(until_state($runner, 'health', 5, sub { !$_[0]{ok} && $_[0]{status} == 500 }), 'it answers 500: told');
	spew("$scratch/state/health", 'hang');
	ok(until_state($runner, 'health', 5, sub { !$_[0]{ok} && $_[0]{status} == 0 && $_[0]{problem} =~ /time/i && $_[0]{ms} < 1000 }), 'it does not answer: told in time');
	spew("$scratch/state/health", 'ok');
	my $before = scalar states($runner, 'health');
	ok($runner->follow(sub { my @h = states($runner, 'health'); @h > $before && $h[-1]{ok} }, 5), 'it recovers: told');

	my $second = server();
	my $other = ready($second);
	isnt($other->{url}, $ready->{url}, 'a second server has another port');
	isnt($other->{password}, $ready->{password}, 'and another password');
	$second->cancel;
	ok($second->result(5), 'a server ends when it is told to');
	ok($second->{result}{ok} && $second->{result}{requested}, 'which is no failure');
	is(scalar(states($second, 'exited')), 1, 'and is told');
	is($second->gone(3), 0, 'its runner ends, too');
	is(ask($other), 0, 'nothing listens there any more');

	kill 'KILL', $ready->{pid};
	ok(until_state($runner, 'exited', 2), 'a server that is killed: told at once');
	ok($runner->result(2), 'and its runner ends');
	ok(!$runner->{result}{requested}, 'nobody had asked for that');
	is($runner->gone(3), 0, 'by itself');
}

{
	my $runner = server(slow => 700);
	my $began = time;
	ready($runner);
	cmp_ok(time - $began, '>=', 0.6, 'a slow server is waited for');
	$runner->hang_up;
	is($runner->gone(3), 0, 'when the dispatcher goes, the runner does');
	my $gone = 0;
	for (1 .. 100) { last if $gone = !grep { slurp($_) =~ /fake-opencode\0serve/ } glob '/proc/[0-9]*/cmdline'; usleep(20_000) }
	ok($gone, 'and the server with it');
}

{
	my $runner = server(health => 'bad', limits => { handshake_ms => 600 });
	ok($runner->result(5), 'a server that never becomes healthy');
	is($runner->{result}{reason}, 'handshake_timeout', 'is given up in time');
	is($runner->gone(3), 0, 'and ended');
	is(scalar(states($runner, 'ready')), 0, 'it was never ready');

	$runner = server(command => [ '/bin/sh', '-c', 'echo no luck >&2; exit 3' ]);
	$runner->result(5);
	is(join(' ', map { $_ // '-' } @{ $runner->{result} }{qw(ok reason exit_code)}), '0 agent_exited 3', 'a server that does not start: says so');
	like($runner->{result}{stderr_tail}, qr/no luck/, 'and in its own words');
	spew("$scratch/broken", "#!/nonexistent/interpreter\n");
	chmod 0755, "$scratch/broken";
	$runner = server(command => ["$scratch/broken"], sandbox => { mode => 'bwrap', ro_paths => [$scratch], hide => [],
		home => "$scratch/home", agent_path => '/usr/bin:/bin', network => JSON::PP::true });
	$runner->result(5);
	is($runner->{result}{reason}, 'spawn_failed', 'a script without its interpreter, in the sandbox: the sandbox is not to blame');
	like($runner->{result}{hint}, qr/interpreter/, 'it says what is');
	$runner = server(command => ['/nowhere/opencode']);
	$runner->result(5);
	is($runner->{result}{reason}, 'program_not_found', 'a program that is not there');

	# Somebody else's port stays somebody else's.
	my $squatter = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die $!;
	$runner = server(env => { FAKE_PORT => '' . $squatter->sockport });
	$runner->result(5);
	is($runner->{result}{reason}, 'agent_exited', 'a port that is taken can not be had');
	ok(IO::Socket::INET->new(PeerAddr => '127.0.0.1:' . $squatter->sockport), 'who has it keeps it');
	$runner = server();
	isnt((ready($runner)->{url} =~ /:(\d+)$/)[0], $squatter->sockport, 'and another port is found');
	$runner->stop;
}

# ======== turns ========

my $server_runner = server();
my $server = ready($server_runner);

{
	my $runner = turn($server, 'think Hmm.;text Working.;tool t1 write;usage 100 20 40 0.5;step;title Greeting;usage 200 30 50 0.25;text Done w\xc3\xb6rld.', model => 'some/model');
	ends($runner, 'completed', undef, 'a turn');
	is_deeply(texts($runner), [ 'Working.', 'Done w\xc3\xb6rld.' ], 'text, once');
	is_deeply([ map { $_->{text} } parts($runner, 'reasoning') ], ['Hmm.'], 'reasoning, once');
	is($runner->text, 'Working.Done w\xc3\xb6rld.', 'and as it came');
	my ($call, @more) = parts($runner, 'tool_call');
	is(join(' ', @$call{qw(id kind status raw_output)}, scalar @more), 't1 edit completed output of t1 0', 'a call of a tool');
	like($call->{title}, qr{^write .*/t1$}, 'its title');
	ok($call->{ended_ms} >= $call->{started_ms}, 'its times');
	my $usage = $runner->{result}{usage};
	is("$usage->{input_tokens} $usage->{output_tokens} $usage->{cached_tokens} $usage->{cost_usd}", '300 50 90 0.75', 'usage: the sum of its steps');
	is($usage->{model}, 'some/model', 'of the model that was asked for');
	is($runner->{result}{stop_reason}, 'stop', 'why it stopped');
	is($runner->{result}{summary}, 'Done w\xc3\xb6rld.', 'summary');
	is((events($runner, 'title'))[0]{title}, 'Greeting', 'title');
	ok($runner->{kept} && $runner->{result}{warm}, 'the chat is kept');
	my $session = $runner->{result}{agent_session_id};
	my ($asked) = (requests(qr{POST /session/\Q$session\E/prompt_async}))[-1];
	is($json->encode($asked->{body}{model}), '{"modelID":"model","providerID":"some"}', 'the model was asked for');
	is($asked->{query}{directory}, "$scratch/worktrees/p1/one", 'in its worktree');

	turn($server, 'usage 1 2 3 1;text Second.', runner => $runner, mode => 'plan');
	ends($runner, 'completed', undef, 'another turn');
	is_deeply(texts($runner), ['Second.'], 'has its own text only');
	my $streams = scalar requests(qr{GET /event$});
	$runner->{knows} = 0;
	turn($server, 'usage 1 2 3 1;text Third.', runner => $runner, mode => 'build');
	ends($runner, 'completed', undef, 'an address that is told again');
	is_deeply(texts($runner), ['Third.'], 'changes nothing');
	is(scalar(requests(qr{GET /event$})), $streams, 'the stream stays');
	is($runner->{result}{usage}{cost_usd}, 1, 'and its own cost');
	is($runner->{result}{agent_session_id}, $session, 'in the same session');
	is_deeply([ map { $_->{mode} } events($runner, 'mode') ], ['build'], 'in the mode that was asked for');
	cmp_ok($runner->{took}, '<', 0.5, 'at once');
	is(scalar(requests(qr{POST /session$})), 1, 'one session was made');
	my $with_setup = turn($server, 'text Set up.', setup => [ 'sleep 0.3', 'true' ]);
	ends($with_setup, 'completed', undef, 'an address that is told while setup commands run');
	$with_setup->stop;

	turn($server, 'lose;text Nobody hears this.;found;finish-only', runner => $runner, seconds => 30);
	ends($runner, 'completed', undef, 'events that get lost, the end too');
	is_deeply(texts($runner), ['Nobody hears this.'], 'the messages are looked at');
	$runner->stop;
}

# ---- what is said more than once, in pieces, or with marks ----

{
	my $runner = turn($server, 'deltas Hel|lo |wor|ld;whole No deltas.;deltas a <dcp-mess|age-id>m00|01</dcp-message-id>|b <d|iv>;rewrite trailing blanks   |trailing blanks;rewrite first words|other words');
	ends($runner, 'completed', undef, 'texts in pieces');
	is_deeply(texts($runner), [ 'Hello world', 'No deltas.', 'a b <div>', 'trailing blanks   ', 'other words' ], 'each once, whole, without marks');
	unlike($json->encode($runner->{events}), qr/dcp/, 'no event has a mark');

	turn($server, 'half <dcp-mess', runner => $runner);
	is_deeply(texts($runner), ['<dcp-mess'], 'what only looks like the beginning of a mark is delivered');

	turn($server, 'think Once.;half Half an ans;retry overloaded;think Once.;text Half an answer.', runner => $runner);
	ends($runner, 'completed', undef, 'a model that failed and was asked again');
	is_deeply(texts($runner), ['Half an answer.'], 'its text is stored once');
	is_deeply([ map { $_->{text} } parts($runner, 'reasoning') ], ['Once.'], 'its reasoning, too');
	is_deeply([ events($runner, 'retry') ], [ { message => 'overloaded' } ], 'and the retry is told');

	turn($server, 'text Ours.;other Not ours.;child 1000 500;text Ours, too.', runner => $runner);
	is_deeply(texts($runner), [ 'Ours.', 'Ours, too.' ], 'texts of other sessions are not ours');
	is($runner->{result}{usage}{input_tokens}, 1010, 'but what sessions below ours used is');

	turn($server, 'junk;split;junk;text Fine.;big 100000;raw data: {"type":;tool t2 bash', runner => $runner);
	ends($runner, 'completed', undef, 'junk on the stream, byte by byte');
	is_deeply(texts($runner), ['Fine.'], 'does no harm');
	$runner->stop;

	$runner = turn($server, 'text Before.;big 3000000;text After.');
	ends($runner, 'completed', undef, 'an event longer than allowed');
	is_deeply(texts($runner), [ 'Before.', 'After.' ], 'is left out');
	$runner->stop;

	$runner = turn($server, 'flood 50000', seconds => 60);
	ends($runner, 'completed', undef, 'a flood of deltas');
	is(length $runner->part_text, length join('', map { "word$_ " } 1 .. 50000), 'arrives whole');
	cmp_ok($runner->memory_kb('VmHWM'), '<', 100_000, 'and takes little memory');
	$runner->stop;
}

# ---- how it ends otherwise ----

for my $case (
	[ 'error 401 Unauthorized', 'auth_required' ], [ 'error 429 Too Many Requests', 'rate_limited' ], [ 'error 500 prompt is too long', 'context_exceeded' ],
	[ 'text Half;error 500 the model is gone', 'agent_error' ], [ 'stop length;text cut', 'max_tokens' ], [ 'stop content-filter', 'refusal' ],
	[ 'no-user', 'agent_error' ], [ 'refuse 400', 'protocol_error' ], [ 'refuse 500', 'protocol_error' ])
{
	my ($prompt, $reason) = @$case;
	my $runner = turn($server, $prompt);
	ends($runner, 'failed', $reason, $prompt);
	my @errors = events($runner, 'error');
	cmp_ok(scalar(@errors), '<=', 1, 'which is told once');
	is($runner->{kept} ? 1 : 0, $reason =~ /auth|protocol/ ? 0 : 1, 'whether the chat goes on');
	if ($runner->{kept})
	{
		turn($server, 'text Next.', runner => $runner);
		ends($runner, 'completed', undef, 'the next turn');
		is_deeply(texts($runner), ['Next.'], 'says what it says');
	}
	$runner->stop;
}

{
	my $runner = turn($server, 'refuse 999;text Taken all the same.');
	ends($runner, 'completed', undef, 'a prompt whose answer is lost');
	is_deeply(texts($runner), ['Taken all the same.'], 'is found to be taken, once');
	is(scalar(grep { ($_->{body}{parts}[0]{text} // '') =~ /Taken all the same/ } requests(qr{prompt_async})), 1, 'and not sent again');
	$runner->stop;
}

# ---- permissions and questions ----

{
	my $runner = begin($server, 'ask c1 rm -rf build;text Allowed.');
	until_events($runner, 'permission_request');
	my ($request) = events($runner, 'permission_request');
	is($request->{kind}, 'permission', 'a permission is asked for');
	is(join(' ', $request->{tool_call}{id}, $request->{tool_call}{kind}, $request->{tool_call}{title}), 'c1 execute rm -rf build', 'for what');
	is($request->{tool_call}{raw_input}{command}, 'rm -rf build', 'the command');
	is(join(' ', map { "$_->{optionId}:$_->{kind}" } @{ $request->{options} }), 'once:allow_once always:allow_always reject:reject_once', 'the options');
	$runner->answer(request => $request->{request}, option => 'once', rule => 'by hand');
	$runner->result(10);
	ends($runner, 'completed', undef, 'allowed');
	is_deeply(texts($runner), ['Allowed.'], 'goes on');
	is((parts($runner, 'permission'))[0]{outcome}, 'selected', 'it is recorded');
	is(scalar(parts($runner, 'tool_call')), 1, 'the call is one');

	begin($server, 'ask c2 make;text Never.', runner => $runner);
	until_events($runner, 'permission_request');
	$runner->answer(request => (events($runner, 'permission_request'))[0]{request}, option => 'reject');
	$runner->result(10);
	ends($runner, 'failed', 'permission_rejected', 'rejected');

	begin($server, 'question Which one?|red|blue', runner => $runner);
	until_events($runner, 'permission_request');
	($request) = events($runner, 'permission_request');
	is(join(' ', @$request{qw(kind message)}), 'elicitation Which one?', 'a question');
	is_deeply($request->{schema}{properties}{q1}{examples}, [ 'red', 'blue' ], 'with what may be answered');
	$runner->answer(request => $request->{request}, content => { q1 => 'blue' });
	$runner->result(10);
	is_deeply(texts($runner), ['{"answers":[["blue"]]}'], 'is answered');

	begin($server, 'drop 300;ask c3 make;text Asked.', runner => $runner);
	until_events($runner, 'permission_request');
	$runner->answer(request => (events($runner, 'permission_request'))[0]{request}, option => 'always');
	$runner->result(10);
	ends($runner, 'completed', undef, 'asked while the stream was cut');
	is_deeply(texts($runner), ['Asked.'], 'it was found');

	begin($server, 'ask c4 make', runner => $runner);
	until_events($runner, 'permission_request');
	$runner->cancel;
	$runner->result(10);
	ends($runner, 'cancelled', 'cancelled', 'cancelled while it waits');
	is((parts($runner, 'permission'))[0]{outcome}, 'cancelled', 'the request is, too');
	turn($server, 'text Next.', runner => $runner);
	is_deeply(texts($runner), ['Next.'], 'the next turn');
	$runner->stop;
}

# ---- cancel ----

{
	my $runner = begin($server, 'text Begun.;hang');
	until_events($runner, 'text');
	$runner->cancel;
	$runner->result(10);
	ends($runner, 'cancelled', 'cancelled', 'a turn that hangs');
	is_deeply(texts($runner), ['Begun.'], 'its text is kept');
	ok($runner->{kept}, 'the chat goes on');
	turn($server, 'wait 100;text Second.', runner => $runner);
	ends($runner, 'completed', undef, 'a turn behind it, with late news of the first one');
	is_deeply(texts($runner), ['Second.'], 'is its own');

	begin($server, 'slow-abort 400;hang', runner => $runner);
	$runner->follow(sub { grep { $_->{body} && ($_->{body}{parts}[0]{text} // '') =~ /slow-abort/ } requests(qr{prompt_async}) }, 5);
	$runner->cancel;
	$runner->result(10);
	ends($runner, 'cancelled', 'cancelled', 'an abort that is answered late');
	turn($server, 'late-idle;wait 300;text Third.', runner => $runner);
	ends($runner, 'completed', undef, 'a session said to be idle while it works');
	is_deeply(texts($runner), ['Third.'], 'is waited for');
	turn($server, 'old Of the turn before.;text Fourth.', runner => $runner);
	is_deeply(texts($runner), ['Fourth.'], 'late texts of an earlier turn are not of this one');

	begin($server, 'deaf;hang', runner => $runner, limits => { cancel_grace_ms => 500 });
	$runner->follow(sub { events($runner, 'mode') || grep { ($_->{body}{parts}[0]{text} // '') =~ /deaf/ } requests(qr{prompt_async}) }, 5);
	my $began = time;
	$runner->cancel;
	$runner->result(10);
	ends($runner, 'cancelled', 'cancelled', 'an abort that is not heeded');
	cmp_ok(time - $began, '<', 4, 'is waited for no longer than allowed');
	ok(!$runner->{kept}, 'and the chat begins anew');
	is($runner->gone(3), 0, 'its runner ends');
}

{
	my $runner = begin($server, 'hang', limits => { inactivity_ms => 400 });
	my $before = scalar requests(qr{/abort$});
	$runner->result(10);
	ends($runner, 'failed', 'inactivity_timeout', 'no sign of life');
	is($runner->gone(3), 0, 'the runner ends');
	cmp_ok(scalar(requests(qr{/abort$})), '>', $before, 'but not without ending the turn of the server');
	$runner = begin($server, join(';', ('text x', 'wait 200') x 6), limits => { inactivity_ms => 400 });
	$runner->result(10);
	ends($runner, 'completed', undef, 'slow, but alive');
	$runner->stop;
	$runner = begin($server, 'hang', limits => { timeout_ms => 500 });
	$runner->result(10);
	ends($runner, 'failed', 'timeout', 'too long');

	# A runner that is killed leaves a turn behind; the next one ends that.
	$runner = begin($server, 'text Left behind.;hang');
	until_events($runner, 'text');
	my ($session) = map { $_->{agent_session_id} // () } events($runner, 'status');
	kill 'KILL', $runner->{pid};
	$runner->gone(3);
	$runner = turn($server, 'text Taken over.', resume => { session_id => $session });
	ends($runner, 'completed', undef, 'after a runner was killed');
	is_deeply(texts($runner), ['Taken over.'], 'the turn it left does not get in the way');
	is($runner->{result}{agent_session_id}, $session, 'the session goes on');
	is(scalar(events($runner, 'context_reset')), 0, 'with what was said in it');
	$runner->stop;

	$runner = turn($server, 'text New.', resume => { session_id => 'ses_unknown' });
	ends($runner, 'completed', undef, 'a session the server does not know');
	is((events($runner, 'context_reset'))[0]{agent_session_id}, 'ses_unknown', 'its loss is told');
	isnt($runner->{result}{agent_session_id}, 'ses_unknown', 'another one is made');
	$runner->stop;
	$runner = turn($server, 'text New.', resume => { session_id => $session, allowed => JSON::PP::false, reason => 'it crashed' });
	is((events($runner, 'context_reset'))[0]{reason}, 'it crashed', 'a session that is not to be gone on with');
	isnt($runner->{result}{agent_session_id}, $session, 'another one is made');
	$runner->stop;
}

# ---- the stream ----

for my $case (
	[ 'the stream is cut between two texts', 'text One.;drop;wait 100;text Two.' ],
	[ 'the stream is cut, and meanwhile the turn ends', 'text One.;drop 400;text Two.' ],
	[ 'the stream is cut within a text', 'half One.;drop 100;wait 300;text Two.' ],
	[ 'the stream is cut many times', join(';', 'text One.', ('drop', 'wait 60') x 5, 'text Two.') ],
	[ 'events are lost behind a cut', 'text One.;lose;text Two.;drop;found' ])
{
	my ($name, $prompt) = @$case;
	my $runner = turn($server, "$prompt;tool t9 bash;usage 7 7 7 1");
	ends($runner, 'completed', undef, $name);
	is_deeply(texts($runner), [ 'One.', 'Two.' ], 'nothing is missing, nothing twice');
	is(scalar(parts($runner, 'tool_call')), 1, 'one call');
	is($runner->{result}{usage}{input_tokens}, 7, 'counted once');
	$runner->stop;
}

{
	my $runner = turn($server, 'text One.');
	my @idle = grep { $_->{query}{directory} eq "$scratch/worktrees/p1/one" } requests(qr{GET /event$});
	$server_runner->follow(sub { 0 }, 0.1);
	turn($server, 'drop;text Two.', runner => $runner);
	ends($runner, 'completed', undef, 'a stream that was cut in a turn');
	turn($server, 'text Three.', runner => $runner);
	ends($runner, 'completed', undef, 'is there for the next one');
	$runner->stop;

	$runner = turn($server, 'lose;wait 1500;text Late.;drop', limits => { stream_silence_ms => 400 });
	ends($runner, 'completed', undef, 'a stream that says nothing is opened again');
	cmp_ok(scalar(requests(qr{GET /event$})) - @idle, '>=', 3, 'while the turn goes on');
	$runner->stop;
}

# ---- two chats at once ----

{
	my $one = begin($server, join ';', map { "text one$_ ;wait 30" } 1 .. 10);
	my $two = begin($server, join(';', map { "text two$_ ;wait 30" } 1 .. 10), cwd => "$scratch/worktrees/p1/two");
	$_->result(15) for $one, $two;
	is($one->part_text, join('', map { "one$_ " } 1 .. 10), 'chats at once: the first');
	is($two->part_text, join('', map { "two$_ " } 1 .. 10), 'the second, in another worktree');
	$_->stop for $one, $two;
}

# ---- a server that ends ----

{
	my $runner = begin($server, 'text Begun.;half Half;tool-start t1 bash;wait 200;exit 1');
	until_events($runner, 'tool_call', 2);
	ok(until_state($server_runner, 'exited', 5), 'the server ends in the middle of a turn');
	$server_runner->gone(3);
	$server_runner = server();
	$server = ready($server_runner);
	$runner->answer(server => address($server));
	$runner->result(15);
	ends($runner, 'failed', 'agent_exited', 'the turn');
	is_deeply(texts($runner), [ 'Begun.', 'Half' ], 'what it said until then is kept, once');
	is((parts($runner, 'tool_call'))[0]{status}, 'in_progress', 'and what it did');
	ok($runner->{kept}, 'the chat goes on');
	turn($server, 'text On the new server.', runner => $runner);
	ends($runner, 'completed', undef, 'on the new server');
	$runner->stop;

	$runner = begin($server, 'text Begun.;hang');
	until_events($runner, 'text');
	$runner->answer(server_failed => { reason => 'agent_exited', message => 'it will not come back' });
	$runner->result(5);
	ends($runner, 'failed', 'agent_exited', 'a server that does not come back');
	is($runner->{result}{message}, 'it will not come back', 'says why');
	$runner->stop;

	$runner = begin(undef, 'text Never.', limits => { handshake_ms => 300 });
	$runner->result(5);
	ends($runner, 'failed', 'handshake_timeout', 'no server in time');
	$runner = begin(undef, 'text Never.');
	$runner->cancel;
	$runner->result(5);
	ends($runner, 'cancelled', 'cancelled', 'cancelled before there is a server');
	$runner = begin({ %$server, password => 'wrong' }, 'text Never.');
	$runner->result(5);
	ends($runner, 'failed', 'protocol_error', 'a password that is wrong');
	$runner = begin({ %$server, url => 'file:///etc/passwd' }, 'text Never.');
	$runner->result(5);
	ends($runner, 'failed', 'protocol_error', 'an address that is none');
	$runner = begin({ %$server, url => 'http://127.0.0.1:1' }, 'text Never.', limits => { handshake_ms => 500 });
	$runner->result(5);
	ends($runner, 'failed', 'handshake_timeout', 'an address where nobody listens');
}

$server_runner->cancel;
$server_runner->result(5);

# ======== the real one ========

my $bin = abs_path($ENV{BOOCODER_AGENTS_DIR} || "$FindBin::RealBin/../../.build/agents") // '(nowhere)';
SKIP:
{
	skip 'BOOCODER_SKIP_REAL_AGENTS is set', 1 if $ENV{BOOCODER_SKIP_REAL_AGENTS};
	-x "$bin/bin/$_" or BAIL_OUT("$bin/bin/$_ is missing: run test/install-agents.sh, or set BOOCODER_SKIP_REAL_AGENTS=1") for qw(node opencode);
	open(my $to_model, '|-', "$bin/bin/node", abs_path("$FindBin::RealBin/../agents/llm-stub.mjs"), '--port-file', "$scratch/port", '--log', "$scratch/llm.log") or die $!;
	for (1 .. 400) { last if -s "$scratch/port"; usleep(50_000) }
	chomp(my $port = slurp("$scratch/port"));
	my %config = (
		autoupdate => JSON::PP::false, share => 'disabled', model => 'stub/stub-model', small_model => 'stub/stub-small', enabled_providers => ['stub'],
		permission => { bash => { 'echo asked*' => 'ask', '*' => 'allow' } },
		provider => { stub => { npm => '@ai-sdk/openai-compatible', name => 'Scripted', options => { baseURL => "http://127.0.0.1:$port/v1", apiKey => 'none' },
			models => { 'stub-model' => { name => 'Scripted', limit => { context => 128000, output => 8000 }, cost => { input => 2, output => 8, cache_read => 0.5 } },
				'stub-small' => { name => 'Small', cost => { input => 1, output => 1 } } } } });
	# As a server's order has it: what all its chats need is shown, and nothing else.
	my $order = sub {
		return server(command => [ "$bin/bin/opencode", 'serve' ], limits => { handshake_ms => 60_000, health_interval_ms => 15_000, health_timeout_ms => 5000, term_grace_ms => 3000 },
			env => { OPENCODE_CONFIG_CONTENT => $json->encode(\%config), OPENCODE_DISABLE_AUTOUPDATE => '1', OPENCODE_DISABLE_MODELS_FETCH => '1',
				OPENCODE_DISABLE_LSP_DOWNLOAD => '1', OPENCODE_DISABLE_DEFAULT_PLUGINS => '1' },
			sandbox => { mode => 'bwrap', ro_paths => [$bin], hide => [], home => "$scratch/homes/server", agent_path => '/usr/local/bin:/usr/bin:/bin', network => JSON::PP::true });
	};
	my $server_runner = $order->();
	my $server = until_state($server_runner, 'ready', 60);
	ok($server, 'opencode serve is ready, in its sandbox') or diag($json->encode($server_runner->{result} // {})), skip 'there is no server', 1;
	like($server->{version}, qr/^\d+\./, 'its version');
	is(ask($server), 401, 'nobody gets in without the password');

	my $runner = turn($server, "!reason Hm.\n!say Working.\n!write hello.txt hello\\n\n!run echo ran > ran.txt\n!end All good.", seconds => 60);
	ends($runner, 'completed', undef, 'opencode: a turn');
	is(slurp("$scratch/worktrees/p1/one/hello.txt"), "hello\n", 'it wrote a file');
	is(slurp("$scratch/worktrees/p1/one/ran.txt"), "ran\n", 'it ran a command');
	is_deeply(texts($runner), [ 'Working.', 'All good.' ], 'text, once');
	is_deeply([ map { $_->{text} } parts($runner, 'reasoning') ], ['Hm.'], 'reasoning, once');
	is(join(' ', map { "$_->{kind} $_->{status}" } parts($runner, 'tool_call')), 'edit completed execute completed', 'its calls');
	my $usage = $runner->{result}{usage};
	is(join(' ', map { $_ // '-' } @$usage{qw(input_tokens output_tokens cached_tokens reasoning_tokens cost_usd)}), '2400 150 600 30 0.0063', 'usage of all three calls of the model');
	my $session = $runner->{result}{agent_session_id};
	turn($server, '!end Second.', runner => $runner, seconds => 30);
	ends($runner, 'completed', undef, 'another turn');
	is($runner->{result}{agent_session_id}, $session, 'of the same session');
	is_deeply(texts($runner), ['Second.'], 'its text');
	is($runner->{result}{usage}{input_tokens}, 800, 'its own usage');
	my ($prompted) = grep { $_->{kind} eq 'status' && $_->{payload}{phase} eq 'prompted' } @{ $runner->{events} };
	cmp_ok($prompted->{at} - $runner->{ordered}, '<', 0.1, 'the prompt goes out at once');
	note(sprintf 'prompted after %.1f ms, over after %.0f ms', 1000 * ($prompted->{at} - $runner->{ordered}), 1000 * $runner->{took});

	begin($server, "!run echo asked\n!end Fine.", runner => $runner);
	until_events($runner, 'permission_request');
	my ($request) = events($runner, 'permission_request');
	is(join(' ', $request->{tool_call}{kind} // '-', $request->{tool_call}{raw_input}{command} // '-'), 'execute echo asked', 'a permission is asked for');
	$runner->answer(request => $request->{request}, option => 'once');
	$runner->result(20);
	is_deeply(texts($runner), ['Fine.'], 'and given');
	begin($server, "!run echo asked again\n!end Never.", runner => $runner);
	until_events($runner, 'permission_request');
	$runner->answer(request => (events($runner, 'permission_request'))[0]{request}, option => 'reject');
	$runner->result(20);
	ends($runner, 'failed', 'permission_rejected', 'or not');
	for my $how (1 .. 2)
	{
		begin($server, '!hang', runner => $runner);
		$runner->follow(sub { events($runner, 'status') && slurp("$scratch/llm.log") =~ /(?:"!hang".*\n.*){$how}/s }, 20);
		$runner->cancel;
		$runner->result(20);
		ends($runner, 'cancelled', 'cancelled', 'cancelled while the model does not answer');
		turn($server, "!end After $how.", runner => $runner, seconds => 30);
		is_deeply(texts($runner), ["After $how."], 'and the next turn, at once');
	}
	turn($server, '!status 401', runner => $runner, seconds => 30);
	ends($runner, 'failed', 'auth_required', 'a model that refuses the key');
	$runner->stop;
	my $began = time;
	my @both = map { begin($server, "!write both.txt $_\n!stream 200", cwd => "$scratch/worktrees/p1/$_") } qw(one two);
	$_->result(60) for @both;
	ends($both[$_], 'completed', undef, "two worktrees at once: $_") for 0, 1;
	is(slurp("$scratch/worktrees/p1/$_/both.txt"), $_, 'each in its own') for qw(one two);
	is($both[$_]->part_text, join('', map { "word$_ " } 1 .. 200) =~ s/ $//r, 'each its own text') for grep { $both[$_]->part_text !~ / $/ } 0, 1;
	is(scalar(() = $_->part_text =~ /word\d+/g), 200, 'and all of it') for @both;
	$_->stop for @both;

	# The next server knows the session: its home is the same.
	kill 'KILL', $server->{pid};
	ok(until_state($server_runner, 'exited', 5), 'opencode is killed');
	$server_runner->gone(5);
	$server_runner = $order->();
	$server = until_state($server_runner, 'ready', 60);
	$runner = turn($server, '!end Resumed.', resume => { session_id => $session }, seconds => 60);
	ends($runner, 'completed', undef, 'on the next server');
	is($runner->{result}{agent_session_id}, $session, 'the session goes on');
	is_deeply(texts($runner), ['Resumed.'], 'with the new text only');
	$runner->stop;
	$server_runner->cancel;
	ok($server_runner->result(10), 'and ends when it is told to');
	close $to_model;
}

done_testing();
