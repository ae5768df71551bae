# SPDX-License-Identifier: PostgreSQL
#
# The same over every transport, by SQL only: edits are applied, text is kept, a follow-up goes on, failures have reasons,
# whatever ends a turn leaves no process, noise and floods do no harm, and a provider's secrets are nowhere but in the
# agent. What a transport can't do is in the table of lib/BoocoderTransports.pm; its tests are skipped with that reason.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use BoocoderTransports;
use Digest::SHA qw(sha256_hex);
use Test::More;

# Each of them is random, so that nothing else can look like it.
my %secret = map { $_ => sprintf 'canary-%s-%s', $_, join '', map { ('a' .. 'z', 0 .. 9)[ rand 36 ] } 1 .. 24 }
  qw(file variable unlisted open);
my $key_file = "$scratch/key";
my $open_file = "$scratch/key-for-all";
spew($key_file, "$secret{file}\n", 0600);
spew($open_file, "$secret{open}\n", 0644);
$ENV{BOOCODER_TEST_KEY} = $secret{variable};
$ENV{BOOCODER_TEST_OTHER_KEY} = $secret{unlisted};
my %env = (KEY_FROM_FILE => { from_file => $key_file }, KEY_FROM_SERVER => { from_env => 'BOOCODER_TEST_KEY' });

my $node = new_node('transports', conf => <<'CONF');
boocoder.max_running = 10
boocoder.cancel_grace = '300ms'
boocoder.term_grace = '200ms'
boocoder.env_allow = 'BOOCODER_TEST_KEY'
log_min_messages = debug1
CONF
delete @ENV{qw(BOOCODER_TEST_KEY BOOCODER_TEST_OTHER_KEY)};

# What an agent leaves behind at its worst: deaf, in sessions of their own; one holds its output, one has nothing of it.
my $deaf = q{trap "" TERM INT HUP QUIT; while :; do sleep 0.2; done};
my $repo = make_repo('transports', { 'hello.txt' => "hello\n", 'litter' => <<"SH" });
setsid sh -c '$deaf' "\$1-holds" &
setsid env -i sh -c '$deaf' "\$1-alone" < /dev/null > /dev/null 2>&1 &
SH
add_project($node, 'demo', $repo);
ok(wait_dispatcher($node), 'the dispatcher is there');
my $listener = session_open($node);
$listener->query_safe('LISTEN boocoder_events');
my $heard = '';

my @rows = transports();
add_transport($node, $_, \%env) for @rows;
my $sandbox = 'on';
my $seen_by_ps = '';
my $serial = 0;

sub name { my ($row, $what) = @_; return "$row->{name}, sandbox $sandbox: $what" }

# ---- tasks of all rows at once ----

# begin(SCENARIO, [STEP ...], OPTION => VALUE ...): a task of each row that can; a list of {row, task, marker}. MARKER in a
# step is replaced by a word of the task's own; "first": also kept agents have no turn before.
sub begin
{
	my ($scenario, $script, %option) = @_;
	my $first = delete $option{first};
	my @runs;
	for my $row (@rows)
	{
		my $why = cannot($row, $scenario, map { $_->[0] } @$script);
		if (defined $why)
		{
			SKIP: { skip(name($row, "$scenario: $why"), 1) }
			next;
		}
		my $marker = sprintf 'boocoder-transports-%d-%d', $$, ++$serial;
		my $prompt = prompt_for($row, map { [ map { s/MARKER/$marker/gr } @$_ ] } @$script);
		push @runs, { row => $row, marker => $marker,
			task => $row->{kept} && !$first ? second_turn($row, $prompt, %option) : run_task($node, $prompt, 'demo', agent => $row->{name}, %option) };
	}
	return @runs;
}

# In a chat whose agent has had a turn, and waits
sub second_turn
{
	my ($row, $prompt, %option) = @_;
	my $session = sql($node, "INSERT INTO boocoder.sessions (project_id) SELECT id FROM boocoder.projects WHERE name = 'demo' RETURNING id");
	my $chat = sql($node, "INSERT INTO boocoder.chats (session_id) VALUES ($session) RETURNING id");
	settles($node, run_task($node, prompt_for($row, [ 'say', 'Hello.' ]), 'demo', agent => $row->{name}, chat => $chat),
		'completed', name($row, 'a first turn'));
	is(sql($node, "SELECT string_agg(state, ' ') FROM boocoder.backends WHERE chat_id = $chat"), 'idle', name($row, 'its agent waits'));
	return run_task($node, $prompt, 'demo', agent => $row->{name}, chat => $chat, %option);
}

sub ends
{
	my ($run, $state, $reason, $what, $seconds) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	settles($node, $run->{task}, $state, name($run->{row}, $what), $seconds // 20);
	is(task_row($node, $run->{task})->{failure_reason}, $reason, name($run->{row}, "$what: reason")) if defined $reason;
}

# The processes of a run, known by its session in their environment, or by the marker where they have none.
sub its_processes
{
	my ($run) = @_;
	$run->{session} //= task_row($node, $run->{task})->{session_id} // return;
	return processes(sub {
		my ($p) = @_;
		return $p->{environ} =~ /^BOOCODER_SESSION_ID=$run->{session}$/m && $p->{environ} =~ /^BOOCODER_WORKTREE=\Q@{[ worktree_root($node) ]}\E/m
		  || $p->{cmdline} =~ /\Q$run->{marker}\E-\w+\n?\z/ });
}

# "intact": the conversation can go on, so an agent that is kept goes with its session only, and what it started with it.
sub nothing_left
{
	my ($run, $what, $intact) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(sql($node, "SELECT count(*) FROM boocoder.servers WHERE state = 'ready'"), name($run->{row}, "$what: the server stays"))
	  if $run->{row}{shared};
	if ($intact && task_row($node, $run->{task})->{warm})
	{
		ok(agent_of($run), name($run->{row}, "$what: the agent is kept"));
		sql($node, "SELECT boocoder.close_session($run->{session}, force => true)");
	}
	my @left;
	my $gone = until_true(sub { @left = its_processes($run); return @left == 0 }, 2);
	ok($gone, name($run->{row}, "$what: no process is left after 2 s")) and return;
	report_processes(@left);
	kill 'KILL', map { $_->{pid} } @left;
}

# The agent itself, not what is around it.
sub agent_of
{
	my ($run) = @_;
	my ($agent) = grep { $_->{cmdline} =~ $run->{row}{program} && $_->{cmdline} !~ m{\A(?:[^\n]*/)?bwrap\n} } its_processes($run);
	return $agent;
}

# The runner above it
sub runner_of
{
	my ($run) = @_;
	my $process = agent_of($run) or return;
	my $dispatcher = dispatcher_pid($node);
	while ($process && $process->{ppid} != $dispatcher)
	{
		my $above = $process->{ppid};
		($process) = processes(sub { $_[0]{pid} == $above });
	}
	return $process;
}

sub length_of
{
	my ($run) = @_;
	return sql($node, "SELECT coalesce(sum(length(payload->>'text')), 0) FROM boocoder.message_parts WHERE task_id = $run->{task} AND kind = 'text'");
}

sub changes_of
{
	my ($run) = @_;
	return sql($node, qq{SELECT coalesce(string_agg(kind || ' ' || path, ', ' ORDER BY path COLLATE "C"), '') FROM boocoder.pending_changes }
		  . "WHERE task_id = $run->{task}");
}

# Tasks that left litter and go on, all of them up
sub begin_litter
{
	my ($scenario, %option) = @_;
	my @runs = begin($scenario, [ [ 'run', 'sh litter MARKER' ], [ 'say', 'litter is out' ], ['hang'] ], %option);
	for my $run (@runs)
	{
		ok(until_true(sub {
			my @all = its_processes($run);
			return agent_of($run) && 2 == grep { $_->{cmdline} =~ /-(?:holds|alone)\n?\z/ } @all }, 20),
			name($run->{row}, "$scenario: the agent and what it started are there")) or explain_task($node, $run->{task});
	}
	look_at_ps();
	return @runs;
}

sub look_at_ps { $seen_by_ps .= join "\n", map { $_->{cmdline} } processes(sub { 1 }) }
sub hear { $heard .= $listener->query('SELECT 1') }

# ---- work ----

sub scenario_edit
{
	my @runs = begin('an edit', [ [ 'write', 'hello.txt', 'changed' ], [ 'write', 'MARKER.txt', 'new' ], [ 'say', 'First words.' ],
		[ 'say', 'Last words.' ],
		# proof that the secrets arrive
		[ 'run', 'printf %s "$KEY_FROM_FILE" "$KEY_FROM_SERVER" "$BOOCODER_TEST_OTHER_KEY" | sha256sum > hash.txt' ] ]);
	for my $run (@runs)
	{
		my ($row, $task) = @$run{qw(row task)};
		ends($run, 'completed', undef, 'an edit');
		is(changes_of($run), "add $run->{marker}.txt, add hash.txt, modify hello.txt", name($row, 'its changes are pending'));
		like(text_of($node, $task), qr/First words\.\n.*Last words\./s, name($row, 'its text is in message_parts'));
		is(task_row($node, $task)->{transport}, $row->{transport}, name($row, 'the transport is on record'));
		my $diff = sql($node, "SELECT diff FROM boocoder.pending_changes WHERE task_id = $task AND path = 'hash.txt'");
		like($diff, qr/^\+@{[ sha256_hex("$secret{file}$secret{variable}") ]}/m, name($row, 'the agent has its secrets, and no others'));

		# A follow-up in the same chat and worktree
		my $first = task_row($node, $task);
		my $prompt = prompt_for($row, [ 'run', "cp $run->{marker}.txt copy.txt" ], [ 'say', 'Once more.' ]);
		my $more = { %$run, task => sql($node, "SELECT boocoder.send($task, " . literal($prompt) . ')') };
		ends($more, 'completed', undef, 'a follow-up');
		my $second = task_row($node, $more->{task});
		is("$second->{chat_id} $second->{session_id}", "$first->{chat_id} $first->{session_id}", name($row, 'in the same chat and session'));
		is(changes_of($more), "add $run->{marker}.txt, add copy.txt, add hash.txt, modify hello.txt", name($row, 'in the same worktree'));
		like(text_of($node, $more->{task}), qr/Once more\./, name($row, 'with its text'));

		# into the checkout
		sql($node, "SELECT boocoder.apply($more->{task})");
		ok(until_true(sub { sql($node, "SELECT string_agg(DISTINCT status, ' ') FROM boocoder.pending_changes WHERE task_id = $more->{task}") eq 'applied' }),
			name($row, 'the changes are applied'));
		my $files = repo_files($repo);
		is(join('', map { $files->{$_} // '-' } 'hello.txt', "$run->{marker}.txt", 'copy.txt') =~ s/\n//gr, 'changednewnew',
			name($row, 'the checkout has them'));
		nothing_left($more, 'a completed task', 1);
		# as it was for the next one
		git($repo, 'reset', '-q', '--hard');
		git($repo, 'clean', '-qfd');
	}
}

# ---- failures ----

sub scenario_exit
{
	for my $run (begin('status 1', [ [ 'say', 'Before.' ], [ 'exit', 1 ] ]))
	{
		ends($run, 'failed', $run->{row}{reasons}{exit}, 'status 1');
		like(task_row($node, $run->{task})->{error}, $run->{row}{tells} // qr/status 1/, name($run->{row}, 'status 1: the message says it'));
		like(text_of($node, $run->{task}), qr/Before\./, name($run->{row}, 'status 1: what it said is kept'));
	}
	for my $run (begin('an error', [ [ 'say', 'Before.' ], [ 'fail', 'The model is on fire' ] ]))
	{
		ends($run, 'failed', $run->{row}{reasons}{fail}, 'an error');
		like(task_row($node, $run->{task})->{error}, qr/The model is on fire/, name($run->{row}, 'an error: the message is the agent\'s'));
	}
}

# ---- ends that are not its own ----

sub scenario_cancel
{
	my @runs = begin_litter('a cancel');
	sql($node, "SELECT boocoder.cancel($_->{task})") for @runs;
	for my $run (@runs)
	{
		ends($run, 'cancelled', 'cancelled', 'a cancel', 10);
		nothing_left($run, 'a cancel', 1);
		like(text_of($node, $run->{task}), qr/litter is out/, name($run->{row}, 'a cancel: what it said is kept'));
	}
}

sub scenario_timeout
{
	my @runs = begin('a time-out', [ [ 'run', 'sh litter MARKER' ], [ 'say', 'litter is out' ], ['hang'] ], timeout => '1500 ms');
	for my $run (@runs)
	{
		ends($run, 'failed', 'timeout', 'a time-out', 10);
		nothing_left($run, 'a time-out');
	}
}

sub scenario_kill_agent
{
	my @runs = begin_litter('kill -9 of the agent');
	kill 'KILL', map { agent_of($_)->{pid} // () } @runs;
	for my $run (@runs)
	{
		ends($run, 'failed', $run->{row}{reasons}{killed}, 'kill -9 of the agent', 10);
		nothing_left($run, 'kill -9 of the agent');
	}
}

sub scenario_kill_runner
{
	my @runs = begin_litter('kill -9 of the runner');
	my $dispatcher = dispatcher_pid($node);
	for my $run (@runs)
	{
		my $runner = runner_of($run);
		like($runner->{cmdline} // '', qr/boocoder-runner/, name($run->{row}, 'kill -9 of the runner: it is found')) or next;
		kill 'KILL', $runner->{pid};
	}
	for my $run (@runs)
	{
		ends($run, 'failed', 'runner_crashed', 'kill -9 of the runner', 10);
		nothing_left($run, 'kill -9 of the runner');
	}
	is(dispatcher_pid($node), $dispatcher, "sandbox $sandbox: the dispatcher goes on");
}

# ---- bad manners ----

sub scenario_noise
{
	for my $run (begin('noise', [ [ 'say', 'Before.' ], ['noise'], [ 'say', 'After.' ], [ 'write', 'seen.txt', 'seen' ] ]))
	{
		ends($run, 'completed', undef, 'noise');
		like(text_of($node, $run->{task}), qr/Before\..*After\./s, name($run->{row}, 'noise: the text around it'));
		is(changes_of($run), 'add seen.txt', name($run->{row}, 'noise: the work is there'));
		my @events = eval { events_of($node, $run->{task}) };
		ok(@events > 1, name($run->{row}, 'noise: its events can be read'));
	}
}

sub scenario_flood
{
	my $errors = q{perl -e 'print STDERR substr(q{error of the agent } x 64, 0, 1023), qq{@{[chr 10]}} for 1 .. 16384'};
	my @runs = begin('a flood of text', [ [ 'flood', 20_000, 1024 ], [ 'say', 'After.' ] ]);
	my ($dispatcher, $most) = (dispatcher_pid($node), 0);
	until_true(sub {
		for my $runner (runner_pids($dispatcher))
		{
			my ($kb) = eval { slurp("/proc/$runner->{pid}/status") =~ /^VmHWM:\s+(\d+)/m };
			$most = $kb if ($kb // 0) > $most;
		}
		return !grep { task_state($node, $_->{task}) =~ /^(?:pending|running)$/ } @runs }, 120);
	cmp_ok($most, '>', 0, 'the memory of runners was looked at');
	cmp_ok($most, '<', 64 * 1024, "a flood of text: no runner takes more than 64 MB ($most kB)");
	for my $run (@runs)
	{
		ends($run, 'completed', undef, 'a flood of text');
		cmp_ok(length_of($run), '>=', 20_000 * 1024, name($run->{row}, 'a flood of text: all of it is kept'));
	}
	for my $run (begin('errors', [ [ 'run', $errors ], [ 'say', 'After.' ] ]))
	{
		ends($run, 'completed', undef, 'a flood of errors', 60);
		my ($bytes, $left_out) = split /\|/, sql($node, "SELECT sum(length(payload->>'text')), sum((payload->>'left_out')::bigint) "
			  . "FROM boocoder.events WHERE task_id = $run->{task} AND kind = 'log' AND payload->>'stream' = 'stderr'");
		cmp_ok($bytes, '<', 5 * 1024 * 1024, name($run->{row}, 'a flood of errors: is cut'));
		cmp_ok($bytes, '>', 1024 * 1024, name($run->{row}, 'a flood of errors: its beginning is kept'));
		is($bytes + ($left_out // 0), 16384 * 1024, name($run->{row}, 'a flood of errors: how much was left out is told'));
	}
}

# ---- secrets ----

sub scenario_no_secret
{
	for my $case ([ 'a key that others can read', { from_file => $open_file } ], [ 'a variable that is not allowed', { from_env => 'BOOCODER_TEST_OTHER_KEY' } ])
	{
		my ($what, $reference) = @$case;
		sql($node, 'UPDATE boocoder.providers SET env = ' . literal(json->encode({ %env, BAD_KEY => $reference })) . " WHERE name = '$_->{name}'") for @rows;
		ends($_, 'failed', 'secret_unavailable', $what) for begin($what, [ [ 'say', 'Without a key.' ] ], first => 1);
	}
	sql($node, 'UPDATE boocoder.providers SET env = ' . literal(json->encode(\%env)) . " WHERE name = '$_->{name}'") for @rows;
}

sub holds_none
{
	my ($text, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(join(' ', grep { index($text, $secret{$_}) >= 0 } sort keys %secret), '', "no secret is in $name");
}

sub secrets_are_nowhere
{
	for my $table (split /\n/, sql($node, q{SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') ORDER BY 1}))
	{
		holds_none(sql($node, "SELECT t::text FROM $table t"), $table);
	}
	holds_none(sql($node, 'SELECT q::text FROM pg_stat_activity q'), 'pg_stat_activity');
	holds_none(sql($node, $_), $_) for 'SELECT boocoder.provider_snapshot()', 'SELECT d::text FROM boocoder.doctor() d',
	  'SELECT i::text FROM boocoder.inbox i', map { "SELECT boocoder.launch_spec('$_->{name}')" } @rows;
	hear();
	session_close($listener);
	like($heard, qr/boocoder_events/, 'notifications were heard');
	holds_none($heard, 'notifications');
	like($seen_by_ps, qr/fake-acp.*boocoder-runner|boocoder-runner.*fake-acp/s, 'ps saw agents and runners');
	holds_none($seen_by_ps, 'the command lines of processes');
	holds_none(slurp($node->logfile), 'the server\'s log');
	$node->stop('fast');
	for my $secret (sort keys %secret)
	{
		my $found = '';
		IPC::Run::run([ 'grep', '-rlaF', $secret{$secret}, $node->data_dir, worktree_root($node), $repo ], '>', \$found, '2>', \my $error);
		is($found, '', "the secret \"$secret\" is in no file of the server, the worktrees and the project");
	}
}

# ---- all of it ----

my %scenario = (
	on => [ \&scenario_edit, \&scenario_exit, \&scenario_cancel, \&scenario_timeout, \&scenario_kill_agent, \&scenario_kill_runner,
		\&scenario_noise, \&scenario_flood, \&scenario_no_secret ],
	# where another guard sees to the processes
	off => [ \&scenario_cancel, \&scenario_timeout, \&scenario_kill_agent, \&scenario_kill_runner ],
);
for my $setting (qw(on off))
{
	$sandbox = $setting;
	$node->append_conf('postgresql.conf', "boocoder.sandbox = $sandbox");
	$node->reload;
	# The dispatcher has heard of it when a task is run that way.
	ok(until_true(sub {
		my $task = run_task($node, "test -e '@{[ $node->data_dir ]}/PG_VERSION' && echo off || echo on", 'demo', agent => 'command');
		wait_settled($node, $task);
		return text_of($node, $task) eq "$sandbox\n" }), "sandbox $sandbox");
	for my $run (@{ $scenario{$sandbox} })
	{
		$run->();
		hear();
	}
}
is(sql($node, "SELECT count(*) FROM boocoder.tasks WHERE state IN ('pending', 'running', 'blocked')"), '0', 'no task is left open');
sql($node, 'SELECT boocoder.close_session(id, force => true) FROM boocoder.sessions WHERE closed_at IS NULL');
ok(none_left($node), 'no process is left');
secrets_are_nowhere();
done_testing();
