# SPDX-License-Identifier: PostgreSQL
#
# Agents, runners, dispatchers and the server are killed at random while tasks run, kept agents and others; whatever
# happens: nothing is stuck, lost, or done twice.
#
#   BOOCODER_CHAOS_ROUNDS   kills (default 40)      BOOCODER_CHAOS_SEED   to see the same choices again
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $rounds = $ENV{BOOCODER_CHAOS_ROUNDS} // 40;
my $seed = $ENV{BOOCODER_CHAOS_SEED} // time % 100000;
srand $seed;
note "seed $seed, $rounds kills";

my $node = new_node('chaos', conf => <<'CONF');
boocoder.poll_interval = '300ms'
boocoder.max_running = 6
boocoder.max_warm_backends = 3
boocoder.idle_ttl = '2s'
boocoder.term_grace = '200ms'
fsync = on
CONF
my $repo = make_repo('chaos');
add_project($node, 'demo', $repo);
ok(wait_dispatcher($node), 'the dispatcher is there');
add_fake_acp($node, 'keeps', '--resume');
add_fake_acp($node, 'tells', '--load');
add_shell_agent($node, 'shell');

my @agents = qw(keeps tells shell);
sql($node, 'INSERT INTO boocoder.sessions (project_id) SELECT 1 FROM generate_series(1, 4)');
sql($node, 'INSERT INTO boocoder.chats (session_id) SELECT (n + 1) / 2 FROM generate_series(1, 8) n');
my %enqueued;
my $marks = 0;

sub survives
{
	my ($statement) = @_;
	for (1 .. 200)
	{
		# a psql that ends before it has read the statement is a broken pipe here
		my ($code, $out) = eval { $node->psql('postgres', $statement) };
		return $out if defined $code && $code == 0;
		sleep 0.1;
	}
	BAIL_OUT("the server does not come back: $statement");
}

# A task that leaves one line in its worktree, says one word, and costs 10 tokens.
sub enqueue
{
	my $mark = sprintf 'm%04d', ++$marks;
	my $agent = $agents[ rand @agents ];
	my $chat = 1 + int rand 8;
	my $pause = 0.2 * int rand 4;
	my $input = $agent eq 'shell' ? "sleep $pause; echo $mark >> log.txt; echo said-$mark; sleep $pause"
	  : "sleep $pause; append log.txt $mark; text said-$mark; turn-usage 10 0 0; sleep $pause";
	my $task = survives("INSERT INTO boocoder.tasks (project_id, session_id, chat_id, creator, agent, input, max_attempts, idempotency_key)"
		  . " SELECT 1, session_id, id, 'chat', '$agent', " . literal($input) . ", 50, '$mark' FROM boocoder.chats WHERE id = $chat"
		  . " ON CONFLICT DO NOTHING RETURNING id")
	  || survives("SELECT id FROM boocoder.tasks WHERE idempotency_key = '$mark'");
	$enqueued{$task} = $mark;
}

my %killed;

sub strike
{
	my $pick = rand;
	my $dispatcher = dispatcher_pid($node);

	if ($pick < 0.3)
	{
		my @victims = grep { $_->{cmdline} =~ m{fake-acp|log\.txt} && $_->{cmdline} !~ /bwrap/ } agent_pids($node);
		return 0 unless @victims;
		kill 'KILL', $victims[ rand @victims ]{pid};
		$killed{agent}++;
	}
	elsif ($pick < 0.6)
	{
		my @victims = $dispatcher ? runner_pids($dispatcher) : ();
		return 0 unless @victims;
		kill 'KILL', $victims[ rand @victims ]{pid};
		$killed{runner}++;
	}
	elsif ($pick < 0.75)
	{
		return 0 unless $dispatcher;
		kill 'TERM', $dispatcher;
		$killed{'dispatcher (TERM)'}++;
	}
	elsif ($pick < 0.87)
	{
		return 0 unless $dispatcher;
		kill 'KILL', $dispatcher;
		$killed{'dispatcher (KILL)'}++;
	}
	elsif ($pick < 0.95)
	{
		my $postmaster = (split /\n/, slurp($node->data_dir . '/postmaster.pid'))[0];
		kill 'KILL', $postmaster;
		until_true(sub { !alive($postmaster) }, 10);
		ok(none_left($node, undef, 5), 'the postmaster killed: no agent is left');
		# PostgreSQL::Test::Cluster does not know that it is gone
		until_true(sub { $node->{_pid} = undef; $node->start(fail_ok => 1) }, 20) or BAIL_OUT('the server does not start');
		$killed{postmaster}++;
	}
	else
	{
		$node->stop('immediate');
		ok(none_left($node, undef, 5), 'stopped at once: no agent is left');
		$node->start;
		$killed{'stop -m immediate'}++;
	}
	return 1;
}

my $struck = 0;
my $began = time;
while ($struck < $rounds)
{
	enqueue() for 1 .. 1 + int rand 3;
	sleep 0.05 + rand 0.4;
	$struck += strike();
}
note "killed: ", join ', ', map { "$killed{$_} $_" } sort keys %killed;
note "$marks tasks";

# ---- when it is over ----

my $left = until_true(sub { survives("SELECT count(*) = 0 FROM boocoder.tasks WHERE state IN ('pending', 'running', 'blocked')") eq 't' }, 120);
ok($left, 'nothing is stuck') or diag(survives("SELECT string_agg(id || ' ' || state || ' attempt ' || attempt, E'\\n') FROM boocoder.tasks WHERE state IN ('pending', 'running', 'blocked')"));
is(survives('SELECT count(*) FROM boocoder.tasks'), $marks, 'every task that was enqueued is there');
my %states = map { split /\|/ } split /\n/, survives('SELECT state, count(*) FROM boocoder.tasks GROUP BY 1');
note 'outcomes: ', join ', ', map { "$states{$_} $_" } sort keys %states;
note 'attempts: ', survives('SELECT sum(attempt) FROM boocoder.tasks');
is(survives("SELECT coalesce(string_agg(DISTINCT failure_reason, ' ' ORDER BY failure_reason), '') FROM boocoder.tasks WHERE state = 'failed'"
	  . " AND failure_reason NOT IN ('agent_exited', 'killed_by_signal', 'runner_crashed', 'exit_nonzero')"), '', 'tasks failed for what was done to them only');

# One more turn in each session sees what its worktree holds.
for my $session (1 .. 4)
{
	my $task = survives("INSERT INTO boocoder.tasks (project_id, session_id, chat_id, creator, agent, input)"
		  . " SELECT 1, $session, $session * 2, 'chat', 'shell', 'cat log.txt' RETURNING id");
	settles($node, $task, 'completed', "a last turn in session $session");
	my $path = sql($node, "SELECT path FROM boocoder.worktrees WHERE session_id = $session AND deleted_at IS NULL");
	my %lines;
	$lines{$_}++ for split /\n/, -e "$path/log.txt" ? slurp("$path/log.txt") : '';
	my (@lost, @twice);
	for my $row (sql_rows($node, "SELECT idempotency_key, state, attempt FROM boocoder.tasks WHERE session_id = $session AND idempotency_key IS NOT NULL"))
	{
		my $n = $lines{ $row->{idempotency_key} } // 0;
		push @lost, $row->{idempotency_key} if $row->{state} eq 'completed' && $n == 0;
		push @twice, $row->{idempotency_key} if $n > $row->{attempt};
	}
	is("@lost", '', 'the work of every completed task is in its worktree');
	is("@twice", '', 'no attempt was made twice');
	my $diff = sql($node, "SELECT boocoder.diff($task)");
	my @undiffed = grep { $diff !~ /^\+\Q$_\E$/m } keys %lines;
	is("@undiffed", '', 'and in what waits to be decided');
}
is(survives("SELECT count(*) FROM boocoder.tasks t WHERE state = 'completed' AND idempotency_key IS NOT NULL AND"
	  . " (SELECT count(*) FROM boocoder.message_parts p WHERE p.message_id = t.message_id AND p.kind = 'text'"
	  . "     AND p.payload ->> 'text' LIKE '%said-' || t.idempotency_key || '%') <> 1"), 0, 'what each of them said is kept, once');
is(survives("SELECT count(*) FROM (SELECT u.task_id FROM boocoder.usage_events u JOIN boocoder.tasks t ON t.id = u.task_id"
	  . " GROUP BY u.task_id, t.attempt HAVING count(*) > t.attempt OR sum(u.input_tokens) <> 10 * count(*)) x"), 0, 'and charged once an attempt');
is(survives("SELECT count(*) FROM boocoder.tasks t WHERE state = 'completed' AND agent <> 'shell' AND input_tokens = 0"), 0, 'none for nothing');
is(survives("SELECT count(*) FROM boocoder.messages WHERE status = 'streaming'"), 0, 'no message is left open');
is(survives("SELECT count(*) FROM boocoder.agent_sessions WHERE status = 'active'"), 0, 'no agent is said to be at work');
is(survives("SELECT count(*) FROM boocoder.jobs WHERE state IN ('queued', 'running')"), 0, 'no job is left');
ok(until_true(sub { survives('SELECT count(*) FROM boocoder.backends') == 0 }, 20), 'kept agents end in their time');
ok(none_left($node), 'no process is left');
my $worktrees = survives("SELECT string_agg(substring(path from '[^/]+\$'), ' ' ORDER BY session_id) FROM boocoder.worktrees WHERE deleted_at IS NULL");
my ($root) = survives('SELECT path FROM boocoder.worktrees LIMIT 1') =~ m{^(.*)/};
is(join(' ', sort map { s{.*/}{}r } glob "$root/*"), $worktrees, 'as many worktrees as there are sessions');
cmp_ok(time - $began, '<', 600, 'in good time');

$node->stop;
done_testing();
