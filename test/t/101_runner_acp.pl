# SPDX-License-Identifier: PostgreSQL
#
# The Agent Client Protocol with the runner alone: what a person has to answer, modes and models, agents that call a
# failure a success, and the fallback when there is nobody to talk to. The agent is test/agents/fake-acp.
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

my $scratch = abs_path(tempdir('boocoder-acp-XXXXXX', DIR => '/var/tmp', CLEANUP => 1));
my $worktree = "$scratch/worktree";
mkdir $worktree;
my $fake = abs_path("$FindBin::RealBin/../agents/fake-acp");
my $json = JSON::PP->new->canonical;

# ---- turns ----

# begin(PROMPT, OPTION => VALUE ...): "args" are arguments of the agent, "limits" are added to the defaults
sub begin
{
	my ($prompt, %option) = @_;
	my $limits = delete $option{limits} // {};
	my $args = delete $option{args} // [];
	my $runner = BoocoderRunner->start;

	$runner->order({
		role => 'agent', task_id => 42, transport => 'acp', cwd => $worktree, input => $prompt, agent_kind => undef,
		command => [ '/usr/bin/perl', $fake, @$args ], env => {}, setup => [], setup_timeout_ms => 10_000,
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
	my $runner = begin(@_);
	$runner->result(20);
	return $runner;
}

sub ends
{
	my ($runner, $outcome, $reason, $name) = @_;
	my $result = $runner->{result} // {};
	is(join(' ', $result->{outcome} // '(none)', $result->{reason} // '-'), join(' ', $outcome, $reason // '-'), $name)
	  or diag($json->encode($result));
}

sub payloads { my ($runner, $kind) = @_; return map { $_->{payload} } grep { $_->{kind} eq $kind } @{ $runner->{events} } }
sub parts { my ($runner, $kind) = @_; return map { $_->{payload} } grep { $_->{kind} eq $kind } @{ $runner->{parts} } }
sub show { return $json->encode([@_]) }

# Waits until there are N events of the kind; the last of them.
sub await
{
	my ($runner, $kind, $n) = @_;
	$n //= 1;
	$runner->follow(sub { $n <= payloads($runner, $kind) }, 10);
	return (payloads($runner, $kind))[ $n - 1 ];
}

# ---- permissions ----

{
	my $runner = begin('tool-start t1 make it; ask-known t1; text end');
	my $request = await($runner, 'permission_request');
	is($request->{kind}, 'permission', 'a permission is asked of the database');
	is("@{$request->{tool_call}}{qw(id title kind)}", 't1 make it execute', 'with all that is known of the call');
	is(show(map { "$_->{optionId} $_->{name} $_->{kind}" } @{ $request->{options} }),
		'["opt-1-allow_once allow_once allow_once","opt-2-reject_once reject_once reject_once"]', 'and what can be answered');
	my $asked = time();
	$runner->answer(request => 'other', option => 'opt-1-allow_once');
	$runner->answer(request => $request->{request}, option => 'opt-1-allow_once', content => undef, rule => 'rule 3');
	$runner->result(10);
	ends($runner, 'completed', undef, 'the agent goes on');
	cmp_ok(time() - $asked, '<', 2, 'at once');
	like($runner->text, qr/permission: .*"optionId":"opt-1-allow_once".*end/s, 'with the answer');
	my ($part) = parts($runner, 'permission');
	is("@$part{qw(key outcome option rule)}", "$request->{request} selected opt-1-allow_once rule 3", 'which is a part');
	is($runner->{result}{transport}, 'acp', 'the result names the transport');
}

{
	my $runner = begin('ask-many 5; text end');
	await($runner, 'permission_request', 5);
	my @requests = payloads($runner, 'permission_request');
	my %keys = map { $_->{request} => 1 } @requests;
	is(scalar keys %keys, 5, 'five requests at once have five keys');
	for my $i (3, 0, 4, 2, 1)
	{
		$runner->answer(request => $requests[$i]{request}, option => $i % 2 ? 'opt-2-reject_once' : 'opt-1-allow_once');
	}
	$runner->result(10);
	ends($runner, 'completed', undef, 'answered in another order');
	is(join(' ', $runner->text =~ /(allow|reject)_once/g), 'allow reject allow reject allow', 'each has its own answer');
}

{
	my $runner = begin('ask; text end', limits => { timeout_ms => 1000, inactivity_ms => 500 });
	my $request = await($runner, 'permission_request');
	my $waited = $runner->follow(sub { $runner->{result} }, 2.5);
	ok(!$waited, 'neither silence nor the time-out ends a turn that waits for a person');
	my ($user, $system) = do {
		open my $stat, '<', "/proc/$runner->{pid}/stat" or die;
		(split ' ', <$stat>)[ 13, 14 ];
	};
	cmp_ok($user + $system, '<', 30, 'which costs no time of the processor');
	$runner->answer(request => $request->{request}, option => 'opt-1-allow_once');
	$runner->result(10);
	ends($runner, 'completed', undef, 'and then it goes on');

	$runner = begin('ask; text more; sleep 60', limits => { timeout_ms => 1500 });
	$request = await($runner, 'permission_request');
	$runner->follow(sub { 0 }, 1);
	$runner->answer(request => $request->{request}, option => 'opt-1-allow_once');
	my $answered = time();
	$runner->result(10);
	ends($runner, 'failed', 'timeout', 'the rest of its time is what it had left');
	cmp_ok(time() - $answered, '>', 0.7, 'not less');
	cmp_ok(time() - $answered, '<', 3, 'nor more');
}

{
	my $runner = begin('on-cancel ignore; ask-many 2; elicit Which?; stop cancelled');
	await($runner, 'permission_request', 2);
	$runner->cancel;
	$runner->result(10);
	ends($runner, 'cancelled', 'cancelled', 'a cancel while permissions are pending');
	is(scalar(() = $runner->text =~ /permission: \{"outcome":\{"outcome":"cancelled"\}\}/g), 2, 'both are answered as cancelled');
	like($runner->text, qr/elicitation: \{"action":"cancel"\}/, 'and what is asked afterwards, too');
	is(show(map { $_->{rule} } parts($runner, 'permission')), '["cancel","cancel","cancel"]', 'which is recorded');
	is(scalar(payloads($runner, 'permission_request')), 2, 'nobody is asked any more');

	$runner = begin('ask-withdrawn; text end');
	$runner->result(10);
	ends($runner, 'completed', undef, 'a request that is withdrawn');
	is(show(payloads($runner, 'permission_withdrawn')), '[{"request":"1"}]', 'is told as withdrawn');
	is(scalar(payloads($runner, 'permission')), 0, 'and not as answered');

	for my $case ([ 'opt-2-reject_once', 'failed permission_rejected' ], [ undef, 'failed permission_rejected' ],
		[ 'opt-1-allow_once', 'cancelled cancelled' ])
	{
		$runner = begin('ask; stop cancelled');
		my $request = await($runner, 'permission_request');
		$runner->answer(request => $request->{request}, option => $case->[0]);
		$runner->result(10);
		ends($runner, split(' ', $case->[1]), 'an agent that ends its turn as cancelled after ' . ($case->[0] // 'no answer'));
	}
}

for my $case ([ { content => { name => 'Bob' } }, '{"action":"accept","content":{"name":"Bob"}}', 'selected' ],
	[ { content => undef, option => 'decline' }, '{"action":"decline"}', 'selected' ],
	[ { content => undef, option => undef }, '{"action":"cancel"}', 'cancelled' ])
{
	my ($answer, $told, $outcome) = @$case;
	my $runner = begin('elicit Your name?; text end');
	my $request = await($runner, 'permission_request');
	is("$request->{kind} $request->{message}", 'elicitation Your name?', 'a form');
	is_deeply($request->{schema}{required}, ['name'], 'comes with its schema');
	$runner->answer(request => $request->{request}, %$answer);
	$runner->result(10);
	ends($runner, 'completed', undef, 'it is answered');
	like($runner->text, qr/elicitation: \Q$told\E/, $told);
	is((parts($runner, 'permission'))[0]{outcome}, $outcome, 'and recorded');
}

# ---- modes, models, commands, title ----

for my $form ([], ['--config'])
{
	my $name = @$form ? 'options' : 'the older form';
	my $runner = begin('text up; wait-file go; text end', args => $form);
	my $modes = await($runner, 'modes');
	is(join(' ', $modes->{current}, map { $_->{id} } @{ $modes->{modes} }), 'ask ask auto', "$name: the modes are told");
	my $models = await($runner, 'models');
	is(join(' ', $models->{current}, map { $_->{id} } @{ $models->{models} }), 'fake-1 fake-1 fake-2', "$name: and the models");
	$runner->follow(sub { $runner->text =~ /up/ }, 10);
	$runner->answer(mode => 'auto', request => 'm1');
	$runner->answer(mode => 'wild', request => 'm2');
	await($runner, 'mode_failed');
	is(show(payloads($runner, 'mode')), '[{"mode":"auto","request":"m1"}]', "$name: the mode changes while the agent works");
	is(show(payloads($runner, 'mode_failed')), '[{"message":"Unknown value: wild","mode":"wild","request":"m2"}]', "$name: or does not");
	open my $go, '>', "$worktree/go" or die;
	close $go;
	$runner->result(10);
	ends($runner, 'completed', undef, "$name: it ends as ever");
	unlink "$worktree/go";

	$runner = turn('text x', args => $form, mode => 'auto', model => 'fake-2');
	ends($runner, 'completed', undef, "$name: mode and model of the order");
	is(show(payloads($runner, 'mode')), '[{"mode":"auto"}]', "$name: the mode is told");
	is((payloads($runner, 'models'))[-1]{current}, 'fake-2', "$name: and the model");

	$runner = turn('text x', args => $form, mode => 'wild');
	ends($runner, 'failed', 'agent_error', "$name: a mode the agent refuses");
	like($runner->{result}{message}, qr/choice of the mode: Unknown value: wild/, "$name: with what it said");
	$runner = turn('text x', args => $form, model => 'fake-9');
	ends($runner, 'failed', 'agent_error', "$name: a model the agent refuses");
	like($runner->{result}{message}, qr/choice of the model: Unknown value: fake-9/, "$name: with what it said");
}

{
	my $runner = begin('text x', setup => ['sleep 0.4'], args => ['--config']);
	$runner->wait_phase('setup');
	$runner->answer(mode => 'auto', request => 'm1');
	$runner->result(10);
	ends($runner, 'completed', undef, 'a mode wanted before the agent runs');
	is(show(payloads($runner, 'mode')), '[{"mode":"auto","request":"m1"}]', 'is chosen');

	my @models = ('--config', '--models=one/big,two/small,three/small');
	$runner = turn('text x', args => \@models, model => 'big');
	is((payloads($runner, 'models'))[-1]{current}, 'one/big', 'a model without its provider, where only one has it');
	$runner = turn('text x', args => \@models, model => 'small');
	ends($runner, 'failed', 'agent_error', 'where two have it');

	$runner = turn('commands plan,review; commands plan,review; info A title; info A title; mode auto; mode auto; config m2=ask');
	is(show(payloads($runner, 'command')),
		'[{"commands":[{"description":"does plan","hint":null,"name":"plan"},{"description":"does review","hint":null,"name":"review"}]}]',
		'commands are told once');
	is(show(payloads($runner, 'title')), '[{"title":"A title"}]', 'the title as well');
	is(show(payloads($runner, 'mode')), '[{"mode":"auto"}]', 'and the mode');
}

# ---- usage ----

{
	my $runner = turn('tool t1 One; text done; usage 1000 128000 0.006; turn-usage 800 50 200 1050', args => ['--name=OpenCode']);
	is($json->encode($runner->{result}{usage}),
		'{"cached_tokens":200,"cost_total_usd":0.006,"input_tokens":800,"model":"fake-1","output_tokens":50,"partial":true,"reasoning_tokens":0}',
		'a report on the last call alone is marked as a part');
	$runner = turn('text done; turn-usage 800 50 200 1050', args => ['--name=OpenCode']);
	ok(!exists $runner->{result}{usage}{partial}, 'and is all when there was one call');
	$runner = turn('call-usage 1000 50 200; tool t1 One; call-usage 1000 50 200; text done', args => ['--name=qwen-code']);
	is("@{$runner->{result}{usage}}{qw(input_tokens output_tokens cached_tokens)}", '1600 100 400', 'reports on each call are added up');
}

# ---- outcomes ----

my $retry = '\n\nPlease retry if you think this is a transient or recoverable error.';
my $broken = 'update {"sessionUpdate":"session_info_update","_meta":{"codex":{"threadStatus":{"type":"systemError"}}}}';
for my $case (
	[ 'goose', "text I begin.; text Ran into this error: Authentication error: 401 Unauthorized.$retry", 'failed auth_required', qr/^Authentication error/ ],
	[ 'goose', "text Ran into this error: Rate limit exceeded: wait.$retry", 'failed rate_limited', qr/^Rate limit exceeded: wait$/ ],
	[ 'goose', 'text I saw "Ran into this error: x" in the log and mended it.', 'completed' ],
	[ undef, "text Ran into this error: x.$retry", 'completed' ],
	[ 'codex', "text Selected model is at capacity.; $broken", 'failed overloaded', qr/^Selected model is at capacity\.$/ ],
	[ undef, "text x; $broken", 'completed' ],
	[ undef, 'error -32603 Internal error; error-data {"statusCode":429}', 'failed rate_limited', qr/Internal error/ ],
	[ undef, 'error -32603 Internal error; error-data {"errorKind":"authentication_failed"}', 'failed auth_required' ],
	[ undef, 'error 401 no key', 'failed auth_required', qr/no key/ ],
	[ undef, 'error -32603 Internal error; error-data {"details":"prompt is too long"}', 'failed context_exceeded', qr/prompt is too long/ ],
	[ undef, 'error -32603 it broke', 'failed agent_error', qr/it broke/ ])
{
	my ($kind, $prompt, $ends, $message) = @$case;
	my $runner = turn($prompt, agent_kind => $kind);
	ends($runner, (split(' ', $ends), undef)[ 0, 1 ], ($kind // 'some agent') . ": $prompt");
	like($runner->{result}{message} // '', $message, 'with its words') if $message;
}

{
	my $runner = turn('text x', args => [ '--new=auth', '--auth=oauth,key', '--auth-words' ]);
	ends($runner, 'failed', 'auth_required', 'an agent that wants to be signed in');
	like($runner->{result}{hint}, qr/It offers: Oauth \(the way of oauth\), Key \(the way of key\)\./, 'says how');

	my $lost = 'update {"sessionUpdate":"session_info_update","_meta":{"codex":{"error":{"message":"Reconnecting... 1/5","willRetry":true}}}}';
	$runner = turn("message m1 I look at; $lost; message m2 I look at; message m2 \\x20it.", agent_kind => 'codex');
	ends($runner, 'completed', undef, 'an attempt that is repeated');
	is($runner->part_text, 'I look at it.', 'has its text once');
	is(show(payloads($runner, 'retry')), '[{"message":"Reconnecting... 1/5"}]', 'and is told');

	for my $case ([ '--name=OpenCode', 'I look at the long file and mend it.', 1 ],
		[ '--name=fake', 'I look at the long file I look at the long file and mend it.', 0 ])
	{
		my ($name, $text, $told) = @$case;
		$runner = turn('message m1 I look at ; message m1 \x20the long file \x20; message m1 I look at ; message m1 \x20the long file \x20; message m1 and mend it.',
			args => [$name]);
		is($runner->part_text =~ s/ +/ /gr, $text, "$name: text that is said again after a silent retry");
		is(scalar(payloads($runner, 'retry')), $told, "$name: is told where it is known");
	}
}

# ---- the fallback ----

my $instead = { transport => 'command', command => [ '/bin/sh', '-c', 'echo "instead: $1"', 'sh' ] };
for my $case ([ '--init=error', 'agent_error' ], [ '--init=exit', 'agent_exited' ], [ '--init=silence', 'handshake_timeout' ],
	[ '--init=junk', 'handshake_timeout' ], [ '--init=v2', 'protocol_mismatch' ])
{
	my ($arg, $reason) = @$case;
	my $runner = turn('the prompt', args => [ $arg, '--ignore-eof' ], fallback => $instead, limits => { handshake_ms => 1000 });
	ends($runner, 'completed', undef, "$arg: the fallback takes over");
	is($runner->text, "instead: the prompt\n", "$arg: with the prompt");
	is($runner->{result}{transport}, 'command', "$arg: the result says so");
	my ($told) = grep { $_->{phase} eq 'fallback' } payloads($runner, 'status');
	is("$told->{transport} $told->{reason}", "command $reason", "$arg: and an event says why");
	ok(length $told->{message}, "$arg: in words");
}
for my $case ([ '--init=auth', 'auth_required' ], [ '--new=error', 'agent_error' ], [ '--new=exit', 'agent_exited' ])
{
	my ($arg, $reason) = @$case;
	my $runner = turn('text x', args => [$arg], fallback => $instead);
	ends($runner, 'failed', $reason, "$arg: no reason for the fallback");
	is($runner->{result}{transport}, 'acp', "$arg: the result says so");
}
{
	my $runner = turn('text fine', fallback => $instead);
	is("$runner->{result}{transport} " . $runner->text, 'acp fine', 'where all is well there is no need of it');
	$runner = turn('x', args => ['--init=error'], fallback => { transport => 'none', command => ['true'] });
	ends($runner, 'failed', 'agent_error', 'a fallback that is none');
	$runner = turn('x', args => ['--init=error'], fallback => { transport => 'command', command => ['/nonexistent/x'] });
	ends($runner, 'failed', 'program_not_found', 'one that is not there');
	$runner = begin('x', args => [ '--init=silence', '--ignore-term', '--ignore-eof' ], fallback => { transport => 'command', command => [ 'sleep', '60' ] },
		limits => { handshake_ms => 300, term_grace_ms => 2000 });
	$runner->follow(sub { grep { $_->{phase} eq 'fallback' } payloads($runner, 'status') }, 10);
	$runner->cancel;
	$runner->result(10);
	ends($runner, 'cancelled', 'cancelled', 'a cancel on the way to it');
	is(scalar(grep { $_->{phase} eq 'spawned' } payloads($runner, 'status')), 1, 'keeps it from being started');
}

done_testing();
