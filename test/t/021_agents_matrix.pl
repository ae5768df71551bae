# SPDX-License-Identifier: PostgreSQL
#
# Every real agent over every transport it has, and what boocoder makes of it: edits, reasoning, permissions, a cancel,
# failures of the model, usage compared with what the model served, models, modes, commands, resuming. What is expected of
# each is the table below: "yes", or "no" with the reason; any difference fails.
#
# The table of doc/agents.md has to be what was seen; BOOCODER_WRITE_AGENT_TABLE=FILE (1: doc/agents.md of these sources)
# puts it there, between its markers. BOOCODER_MATRIX="claude goose" runs some of them only.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use BoocoderAgents qw(agents_directory missing_agent agent_rows settings_files);
use IPC::Run ();
use Test::More;

if ($ENV{BOOCODER_SKIP_REAL_AGENTS})
{
	plan skip_all => 'BOOCODER_SKIP_REAL_AGENTS is set';
}
my $agents = agents_directory();
my $no_node = missing_agent('node');
BAIL_OUT("node is $no_node, or set BOOCODER_SKIP_REAL_AGENTS=1") if $no_node;

# ---- what is expected ----

my @columns = qw(probe edits reasoning asks cancel refused retries cut usage cancelled models modes commands resume kept);
my $line_mode = 'no: it does not tell in this mode';
my $by_acp = 'no: it is not asked over this transport';
my $no_asking = 'no: it has no way to ask';
my $gives_up = 'no: it gives up, the task fails with `rate_limited`';
my $breaks = 'no: it gives up, the task fails with `agent_error`';
my $not_then = 'no: it tells nothing then';
my $no_resume = 'no: each turn is a conversation of its own, in the same worktree';
my $ends = 'no: it ends with the turn';
my %expected = (
	'opencode-acp' => { usage => 'no: tokens of the last call of a turn; the cost is complete', cancelled => $not_then },
	'opencode-server' => { models => $by_acp, modes => $by_acp, commands => $by_acp },
	'opencode' => { asks => $no_asking, models => $line_mode, modes => $line_mode, commands => $line_mode },
	'qwen-acp' => {},
	'qwen-stream' => { models => $line_mode, modes => $line_mode },
	'claude' => { modes => $line_mode },
	'claude-acp' => {},
	'pi' => { asks => $no_asking, models => $line_mode, modes => $line_mode, commands => $line_mode },
	'codex-acp' => { retries => $gives_up },
	'codex' => {
		asks => $no_asking, retries => $gives_up, cancelled => $not_then, models => $line_mode, modes => $line_mode,
		commands => $line_mode },
	'gemini' => { cut => $breaks, usage => 'no: it does not tell cached and reasoning tokens', cancelled => $not_then },
	'gemini-stream' => {
		reasoning => $line_mode, asks => $no_asking, cut => $breaks, cancelled => $not_then, models => $line_mode,
		modes => $line_mode, commands => $line_mode },
	'goose' => {
		cut => $breaks, usage => 'no: tokens of the last call of a turn', cancelled => $not_then, commands => 'no: it has none' },
	'goose-stream' => {
		asks => $no_asking, cut => $breaks, usage => 'no: it does not tell cached tokens', cancelled => $not_then, models => $line_mode,
		modes => $line_mode, commands => $line_mode },
);
$_->{resume} = $no_resume for @expected{qw(codex gemini-stream goose-stream)};
$expected{$_}{kept} = $ends for grep { !/-acp$|-server$|^gemini$|^goose$/ } keys %expected;
$expected{gemini}{resume} = 'no: it does not always find the session again';

# The modes for working unasked and for asking. An agent without any asks by its configuration, or never.
my %modes = (
	'qwen-acp' => [qw(yolo default)],
	'qwen-stream' => [qw(yolo default)],
	'claude' => [qw(bypassPermissions default)],
	'claude-acp' => [qw(bypassPermissions default)],
	'codex-acp' => [qw(agent-full-access workspace-write)],
	'gemini' => [qw(yolo default)],
	'goose' => [qw(auto approve)],
);

# What each call of the model is in the ledger: input, cached, output. The model serves 800, 200, 50; "last": only the
# last call of a turn is told; "helpers": calls of a turn beside those of the script that are told, too.
my %told = (
	'claude-acp' => { call => [ 800, 200, 50 ], helpers => 1 },    # a small model makes a title
	'opencode-acp' => { call => [ 800, 200, 40 ], last => 1 },
	'gemini' => { call => [ 1000, 0, 40 ] },
	'goose' => { call => [ 1000, 0, 50 ], last => 1 },
	'goose-stream' => { call => [ 1000, 0, 50 ] },
);
my @served = (800, 200, 50);

# ---- the model ----

my $log = "$scratch/llm.log";
my ($stub_in, $stub_out) = ('', '');
my $stub = IPC::Run::start(
	[ "$agents/bin/node", "$agents_dir/llm-stub.mjs", '--port-file', "$scratch/port", '--log', $log ],
	'<', \$stub_in, '>', \$stub_out, '2>&1');
ok(until_true(sub { -s "$scratch/port" }, 20), 'the scripted model listens') or BAIL_OUT($stub_out);
chomp(my $port = slurp("$scratch/port"));

# What it was asked by one agent for one script, known by a word in it.
sub requests
{
	my ($agent, $word) = @_;
	return grep { $_->{path} =~ m{^/\Q$agent\E/} && grep { /\Q$word\E/ } @{ $_->{script} // [] } }
	  map { json->decode($_) } split /\n/, -e $log ? slurp($log) : '';
}

# The steps of a script that were served. Agents may ask twice at the same step, such as for what a user might say next.
sub steps
{
	my %seen;
	$seen{ $_->{step} } = 1 for grep { $_->{served} } requests(@_);
	return scalar keys %seen;
}

# ---- the server ----

my %settings = settings_files();
spew("$scratch/settings/$_", $settings{$_}) for keys %settings;
my $node = new_node('matrix', conf => <<"CONF");
boocoder.sandbox_ro_paths = '$agents:$scratch/settings'
boocoder.handshake_timeout = '180s'
boocoder.probe_timeout = '120s'
boocoder.cancel_grace = '3s'
boocoder.max_running = 7
CONF
my $repo = make_repo('matrix', { 'hello.txt' => "hello\n" });
add_project($node, 'demo', $repo);
ok(wait_dispatcher($node), 'the dispatcher is there');

sub add_agent
{
	my ($row) = @_;
	my $array = sub { return 'ARRAY[' . join(', ', map { literal($_) } @_) . ']::text[]' };
	sql($node, 'INSERT INTO boocoder.providers (name, label, transport, kind, command, version_args, env, default_model) VALUES ('
		  . join(', ', literal("m-$row->{name}"), literal($row->{label}), literal($row->{transport}), literal($row->{kind}),
			$array->(@{ $row->{command} }), $array->(@{ $row->{version_args} }), literal(json->encode($row->{env})),
			# over the protocol the agent's own default is the same model
			$row->{transport} eq 'acp' ? 'NULL' : literal($row->{model})) . ')');
}

sub changes
{
	my ($task) = @_;
	return sql($node, qq{SELECT coalesce(string_agg(kind || ' ' || path, ', ' ORDER BY path COLLATE "C"), '') FROM boocoder.pending_changes WHERE task_id = $task});
}

sub asked
{
	my ($task) = @_;
	return sql($node, "SELECT min(id) FROM boocoder.permission_requests WHERE task_id = $task AND status = 'pending'");
}

# The ledger's sum for tasks: input, cached, output.
sub ledger
{
	my $tasks = join ', ', @_;
	return sql($node, "SELECT concat_ws(' ', sum(input_tokens), sum(cached_tokens), sum(output_tokens)) FROM boocoder.usage_events WHERE task_id IN ($tasks)");
}

# The changes of a list, in the order of changes().
sub sorted { return join ', ', sort { ($a =~ /(\S+)$/)[0] cmp ($b =~ /(\S+)$/)[0] } @_ }

sub yes { return $_[0] ? 'yes' : 'no' }

# ---- one agent ----

sub try_agent
{
	my ($row) = @_;
	my $name = $row->{name};
	my $agent = "m-$name";
	my ($works, $asks) = @{ $modes{$name} // [] };
	my $can_ask = ($expected{$name}{asks} // '') !~ /^no/;
	# codex asks for what leaves its own sandbox only.
	my $write = sub { return $name eq 'codex-acp' ? "!escalate touch $_[0]" : "!write $_[0] asked" };
	my %seen = (asks => 'no');

	# Seven turns at once, each in its own session.
	add_agent($row);
	my $edit = run_task($node, "!reason Pondering.\n!say Working.\n!read hello.txt\n!write hello.txt hello from $name\\n\n!write $name/new.txt new\\n\n!end All good.",
		'demo', agent => $agent, mode => $works, permission_policy => 'allow');
	my $hanging = run_task($node, "!read hello.txt\n!hang $name-hangs", 'demo', agent => $agent, mode => $works, permission_policy => 'allow');
	my $refused = run_task($node, '!status 401', 'demo', agent => $agent, mode => $works);
	my $limited = run_task($node, "!status 429 2\n!end At last.", 'demo', agent => $agent, mode => $works);
	my $cut = run_task($node, "!say Half an answer.\n!cut 1\n!end The rest.", 'demo', agent => $agent, mode => $works);
	my ($allowed, $denied) = map {
		run_task($node, $write->("$name-$_.txt") . "\n!end Asked.", 'demo', agent => $agent, mode => $asks, permission_policy => 'ask')
	} $can_ask ? qw(allowed denied) : ();

	# a permission, given and refused
	if ($can_ask)
	{
		ok(until_true(sub { asked($allowed) && asked($denied) }), "$name: asks") or explain_task($node, $allowed);
		for ([ $allowed, 'allow' ], [ $denied, 'reject' ])
		{
			my $request = asked($_->[0]) or next;
			sql($node, "SELECT boocoder.answer_permission($request, '$_->[1]')");
		}
		wait_settled($node, $_) for $allowed, $denied;
		my $outcome = join '; ', task_state($node, $allowed), changes($allowed), changes($denied);
		is($outcome, "completed; add $name-allowed.txt; ", "$name: does what it was allowed to, and that only");
		is(sql($node, "SELECT count(*) FROM boocoder.message_parts WHERE task_id = $denied AND kind = 'tool_call' AND payload->>'status' IN ('pending', 'in_progress')"),
			0, "$name: what it was refused is no open call");
		$seen{asks} = yes($outcome eq "completed; add $name-allowed.txt; ");
	}

	# a cancel while the model does not answer for the second time
	ok(until_true(sub { grep { $_->{step} == 1 } requests($name, "$name-hangs") }), "$name: waits for its model");
	sql($node, "SELECT boocoder.cancel($hanging)");
	$seen{cancel} = yes(wait_settled($node, $hanging, 90) eq 'cancelled');

	# a model that refuses the key, and one that is busy at first
	wait_settled($node, $_, 90) for $refused, $limited;
	my ($why, $late) = map { join ' ', grep { defined } @{ task_row($node, $_) }{qw(state failure_reason)} } $refused, $limited;
	$seen{refused} = yes($why eq 'failed auth_required');
	diag("$name: a refused key: $why") if $seen{refused} eq 'no';
	like($late, qr/^(?:completed|failed rate_limited)$/, "$name: a busy model is waited for, or is the reason of a failure");
	my $said = () = text_of($node, $limited) =~ /At last\./g;
	$seen{retries} = yes($late eq 'completed' && $said == 1);

	# a model whose connection breaks in the middle of an answer
	wait_settled($node, $cut, 90);
	my ($broken, $words) = (join(' ', grep { defined } @{ task_row($node, $cut) }{qw(state failure_reason)}), text_of($node, $cut));
	$seen{cut} = yes($broken eq 'completed' && $words =~ /^(?!.*Half.*Half).*Half an answer\. The rest\.\s*$/s);
	like($broken, qr/^(?:completed|failed agent_error)$/, "$name: a connection that breaks is overcome, or the reason of a failure");
	diag("$name: a connection that breaks: $broken, text: $words") if $seen{cut} eq 'no';

	# edits, reasoning
	settles($node, $edit, 'completed', "$name: a task completes", 90);
	$seen{edits} = yes(changes($edit) eq sorted('modify hello.txt', "add $name/new.txt") && text_of($node, $edit) =~ /Working\..*All good\./s);
	diag("$name: changes: ", changes($edit), ', text: ', text_of($node, $edit)) if $seen{edits} eq 'no';
	$seen{reasoning} = yes(sql($node, "SELECT string_agg(payload->>'text', '') FROM boocoder.message_parts WHERE task_id = $edit AND kind = 'reasoning'")
		  =~ /Pondering\./);

	# what it offers
	my $chat = task_row($node, $edit)->{chat_id};
	my $session = sql_row($node, "SELECT * FROM boocoder.agent_sessions WHERE chat_id = $chat") // {};
	$seen{models} = yes(grep { $_->{id} =~ /\Q$row->{model}\E/ } @{ $session->{models} // [] });
	$seen{modes} = yes(@{ $session->{modes} // [] } > 1);
	$seen{commands} = yes(sql($node, "SELECT count(*) FROM boocoder.agent_commands WHERE chat_id = $chat") > 0);

	# usage, over one turn and over two
	my $more = run_task($node, "!write $name/second.txt second\\n", 'demo', agent => $agent, chat => $chat, mode => $works,
		permission_policy => 'allow');
	settles($node, $more, 'completed', "$name: a follow-up completes", 90);
	is(changes($more), sorted('modify hello.txt', "add $name/new.txt", "add $name/second.txt"), "$name: with its edit");
	my @steps = (steps($name, "hello from $name"), steps($name, "$name/second.txt"));
	is("@steps", '4 2', "$name: the model served each step");
	my $told = $told{$name} // { call => \@served };
	my $usage = sub {
		my ($turns, $call, $last) = @_;
		my $calls = $last ? $turns : ($told->{helpers} // 0) + $steps[0] + ($turns == 1 ? 0 : $steps[1]);
		return join ' ', map { $_ * $calls } @$call;
	};
	$seen{resume} = yes(grep { $_->{earlier} } requests($name, "$name/second.txt"));
	# It does find its session now and then; the table says what can be relied on.
	$seen{resume} = 'no' if $name eq 'gemini';
	is(ledger($edit), $usage->(1, $told->{call}, $told->{last}), "$name: tokens of one turn");
	is(ledger($edit, $more), $usage->(2, $told->{call}, $told->{last}), "$name: tokens of two turns");
	my ($one, $helped) = map { my $n = $_; join ' ', map { $_ * $n } @{ $told->{call} } } 1, 1 + ($told->{helpers} // 0);
	is(ledger($refused), '', "$name: no tokens of a turn that was refused");
	is(ledger($limited), $late eq 'completed' ? $helped : '', "$name: tokens of a turn with a busy model");
	like(ledger($hanging), qr/^(?:|0 0 0|$one|$helped)$/, "$name: tokens of the cancelled turn, if any");
	$seen{cancelled} = yes(ledger($hanging) =~ /[1-9]/);
	$seen{usage} = yes(ledger($edit, $more) eq $usage->(2, \@served));

	# another turn, by the same process where it is kept
	my $third = run_task($node, "!write $name/third.txt third\n", 'demo', agent => $agent, chat => $chat, mode => $works,
		permission_policy => 'allow');
	settles($node, $third, 'completed', "$name: another follow-up completes", 90);
	$seen{kept} = yes(sql($node, "SELECT state || turns FROM boocoder.backends WHERE chat_id = $chat") eq 'idle2'
		  && grep { $_->{earlier} } requests($name, "$name/third.txt"));
	sql($node, "UPDATE boocoder.chats SET closed_at = now() WHERE closed_at IS NULL");
	sql($node, "UPDATE boocoder.servers SET last_used_at = '2000-01-01'");

	# the probe, with nothing else under way: it has a deadline
	sql($node, "SELECT boocoder.probe_agents('$agent')");
	until_true(sub { sql($node, "SELECT count(*) FROM boocoder.available_agents WHERE name = '$agent' AND probed_at IS NOT NULL") });
	my $probed = sql_row($node, "SELECT * FROM boocoder.available_agents WHERE name = '$agent'") // {};
	$seen{probe} = yes(($probed->{status} // '') eq 'ready' && ($probed->{version} // '') =~ /\d/);
	diag("$name: probe: ", json->encode($probed)) if $seen{probe} eq 'no';
	$row->{version} = ($probed->{version} // '') =~ /(\d+(?:\.\d+)+)/ ? $1 : '?';

	ok(none_left($node, undef, 30), "$name: no process is left");
	for my $column (@columns)
	{
		my $expect = $expected{$name}{$column} // 'yes';
		is($seen{$column}, $expect =~ /^no/ ? 'no' : 'yes', "$name: $column: $expect");
	}
	$row->{seen} = \%seen;
}

# ---- all of them ----

my @rows = agent_rows("http://127.0.0.1:$port", "$scratch/settings");
is(join(' ', sort map { $_->{name} } @rows), join(' ', sort keys %expected), 'each agent has its expectations');
if ($ENV{BOOCODER_MATRIX})
{
	my %wanted = map { $_ => 1 } split ' ', $ENV{BOOCODER_MATRIX};
	@rows = grep { $wanted{ $_->{name} } } @rows;
}
for my $row (@rows)
{
	SKIP:
	{
		$stub->pumpable or BAIL_OUT("the scripted model is gone: $stub_out");
		my $missing = missing_agent($row->{program});
		skip("$row->{name}: $missing", 1) if $missing;
		my $began = now;
		try_agent($row);
		diag(sprintf '%s: %.1f s', $row->{name}, now() - $began);
	}
}
$stub->kill_kill;
$node->stop('fast');

# ---- the table ----

my %title = (
	asks => 'permission allowed, denied', usage => 'usage to the token', cancelled => 'also of a cancelled turn', edits => 'edits, follow-up',
	refused => 'refused key is `auth_required`', retries => 'waits for a busy model', cut => 'text once when its model was cut off', resume => 'resumes a conversation',
	kept => 'kept between turns');
my (@notes, %note);
my $table = '| agent | version | transport | ' . join(' | ', map { $title{$_} // $_ } @columns) . " |\n|" . ' --- |' x (3 + @columns) . "\n";
for my $row (grep { $_->{seen} } @rows)
{
	my @cells = map {
		my $expect = $expected{ $row->{name} }{$_} // '';
		my ($why) = $expect =~ /^no: (.*)/;
		if ($row->{seen}{$_} eq 'no' && $why)
		{
			push @notes, $why unless $note{$why};
			$note{$why} //= @notes;
		}
		$row->{seen}{$_} . ($row->{seen}{$_} eq 'no' && $why ? " ($note{$why})" : '')
	} @columns;
	$table .= '| ' . join(' | ', $row->{label}, $row->{version}, "`$row->{transport}`", @cells) . " |\n";
}
$table .= "\n" . join('; ', map { '(' . ($_ + 1) . ") $notes[$_]" } 0 .. $#notes) . ".\n" if @notes;
note($table);
my $doc = $ENV{BOOCODER_WRITE_AGENT_TABLE} || 1;
$doc = "$FindBin::RealBin/../../doc/agents.md" if $doc eq '1';
my $text = slurp($doc);
my $place = qr/(?<=<!-- generated: agents -->\n).*?(?=<!-- end -->)/s;
if ($ENV{BOOCODER_WRITE_AGENT_TABLE})
{
	ok($text =~ s/$place/$table/, "the table is in $doc");
	spew($doc, $text);
}
SKIP:
{
	skip('not all agents were there', 1) unless @rows == keys %expected && @rows == grep { $_->{seen} } @rows;
	is($text =~ /($place)/ ? $1 : '', $table, 'the table of doc/agents.md is what was seen');
}
done_testing();
