# SPDX-License-Identifier: PostgreSQL
#
# A guest in the server: while agents stream as fast as they can, nobody else has to wait for boocoder, and an idle
# boocoder does nothing.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use IPC::Run ();
use Test::More;

my $node = new_node('manners', conf => <<'CONF');
boocoder.max_running = 10
boocoder.poll_interval = '500ms'
autovacuum = off
max_wal_size = '2GB'
CONF
my $repo = make_repo('manners');
add_project($node, 'demo', $repo);
add_shell_agent($node);
ok(wait_dispatcher($node), 'the dispatcher is there');

# ---- idle: only the poll ----

# Looked at from another database, so that looking does not count.
sub transactions
{
	return sql($node, q{SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'postgres'}, 'template1');
}

# Other counters arrive late; wait until a poll's time passes with nothing but polls.
my $task = run_task($node, 'true', 'demo', agent => 'shell');
wait_settled($node, $task);
my ($from, $began, $rate) = (transactions(), now(), 0);
my $quiet = until_true(sub {
	my $passed = now() - $began;
	return 0 if $passed < 5;
	my $count = transactions() - $from;
	# a poll each 500 ms and one more at either end
	$rate = sprintf '%d transactions in %.1f s', $count, $passed;
	return 1 if $count <= $passed / 0.5 + 2;
	($from, $began) = (transactions(), now());
	return 0 }, 20);
ok($quiet, "idle costs nothing beyond the poll ($rate)");
my $launcher = sql($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'boocoder%' AND xact_start IS NOT NULL});
is($launcher, '0', 'and no transaction is open');

# ---- eight agents at full rate ----

my @flood = map { run_task($node, 'while :; do echo "a line of output of agent $$"; done', 'demo', agent => 'shell') } 1 .. 8;
my $flood = join ',', @flood;
ok(until_true(sub {
	sql($node, "SELECT count(DISTINCT task_id) FROM boocoder.events WHERE task_id IN ($flood) AND kind = 'text'") eq '8' }),
	'eight agents stream');

sub milliseconds
{
	my ($query, $database) = @_;
	my $start = now();
	sql($node, $query, $database);
	return int(1000 * (now() - $start));
}

for my $round (1 .. 3)
{
	sql($node, 'CREATE DATABASE other');
	my $ms = milliseconds('DROP DATABASE other');
	cmp_ok($ms, '<', 1000, "DROP DATABASE of another database took $ms ms");
}

# The oldest transaction of a worker, looked at 300 times. What a worker waited for a processor, while sixteen processes
# of the flood are at them, is the machine's share and counted apart.
my $sampled = sql($node, q{
	CREATE TEMP TABLE seen (at timestamptz, pid integer, began timestamptz, waited bigint);
	DO $$
	BEGIN
		FOR i IN 1 .. 300 LOOP
			PERFORM pg_stat_clear_snapshot();
			INSERT INTO seen SELECT clock_timestamp(), pid, xact_start,
					split_part(pg_read_file('/proc/' || pid || '/schedstat', 0, 100, true), ' ', 2)::bigint / 1000000
				FROM pg_stat_activity WHERE backend_type LIKE 'boocoder%';
			PERFORM pg_sleep(0.01);
		END LOOP;
	END $$;
	SELECT coalesce(max(age - waited), 0)::int || ' ' || coalesce(max(age), 0)::int
	  FROM (SELECT extract(milliseconds FROM max(s.at) - s.began) AS age,
				   coalesce(max(s.waited) - coalesce((SELECT max(b.waited) FROM seen b WHERE b.pid = s.pid AND b.at < s.began),
													 min(s.waited)), 0) AS waited
			  FROM seen s WHERE s.began IS NOT NULL GROUP BY s.pid, s.began) x});
my ($oldest, $seen) = split ' ', $sampled;
cmp_ok($oldest, '<=', 100, "no transaction of a worker was older than 100 ms (oldest: $oldest ms, with its waits for a processor $seen ms)");

# An event can be read soon after the agent said it.
my $lag = sql($node, "SELECT extract(milliseconds FROM clock_timestamp() - max(created_at))::int FROM boocoder.events WHERE task_id IN ($flood)");
cmp_ok($lag, '<', 1000, "the newest event is $lag ms old");

# ---- locks of clients ----

my $locker = session_open($node);
$locker->query_safe("BEGIN; SELECT 1 FROM boocoder.tasks WHERE id = $flood[0] FOR UPDATE;");
sql($node, "SELECT boocoder.cancel($flood[1])");
settles($node, $flood[1], 'cancelled', 'a row lock on one task does not hold up another one', 15);
my $other = run_task($node, 'echo beside', 'demo', agent => 'shell');
settles($node, $other, 'completed', 'nor a new one', 15);
sql($node, 'CREATE DATABASE other');
my $ms = milliseconds('DROP DATABASE other');
cmp_ok($ms, '<', 1000, "DROP DATABASE beside a row lock took $ms ms");
$locker->query_safe('COMMIT');

# A task that wants to end while its row is locked waits for that lock, and only it does.
my $short = run_task($node, 'while [ ! -e open ]; do sleep 0.05; done', 'demo', agent => 'shell');
ok(until_true(sub { task_state($node, $short) eq 'running' }), 'a task runs');
my $path = until_true(sub {
	sql($node, "SELECT w.path FROM boocoder.worktrees w JOIN boocoder.tasks t USING (session_id) WHERE t.id = $short AND w.status = 'active'") });
$locker->query_safe("BEGIN; SELECT 1 FROM boocoder.tasks WHERE id = $short FOR UPDATE;");
spew("$path/open", '');
ok(none_left_of($short), 'its agent ends');
$other = run_task($node, 'echo beside', 'demo', agent => 'shell');
settles($node, $other, 'completed', 'another task comes and goes meanwhile', 15);
is(task_state($node, $short), 'running', 'the locked one is not settled');
$locker->query_safe('COMMIT');
settles($node, $short, 'completed', 'until the lock is gone', 15);

# A whole table locked: nothing of ours waits without end, and afterwards all goes on.
$locker->query_safe('BEGIN; LOCK TABLE boocoder.tasks, boocoder.events IN ACCESS EXCLUSIVE MODE;');
sql($node, 'CREATE DATABASE other', 'template1');
$ms = milliseconds('DROP DATABASE other', 'template1');
cmp_ok($ms, '<', 1000, "DROP DATABASE beside a table lock took $ms ms");

# When what DROP DATABASE asks of everybody arrives together with the end of the dispatcher's wait for a lock: it stands
# still for longer than that.
sql($node, 'CREATE DATABASE other', 'template1');
my $before = dispatcher_pid($node);
my $stopped;
ok(until_true(sub {
	return 0 if sql($node, "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $before", 'template1') ne 't';
	kill STOP => $before;
	$stopped = now();
	return 1 if sql($node, "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $before", 'template1') eq 't';
	kill CONT => $before;
	return 0 }), 'the dispatcher waits for a lock');
my $drop = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('template1'), '-c', 'DROP DATABASE other' ]);
until_true(sub {
	$drop->pump_nb if $drop->pumpable;
	# longer than the dispatcher's lock_timeout, and asked; 14 asks nobody
	return now() - $stopped > 0.2 && (!$drop->pumpable
		|| sql($node, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ProcSignalBarrier'", 'template1') ne '0') });
my $released = now();
kill CONT => $before;
until_true(sub { $drop->pump_nb if $drop->pumpable; return !$drop->pumpable }, 5);
$ms = int(1000 * (now() - $released));
cmp_ok($ms, '<', 1000, "DROP DATABASE that comes with a time-out of a lock took $ms ms");
$locker->query_safe('COMMIT');
session_close($locker);
$drop->pumpable ? $drop->kill_kill : $drop->finish;
$other = run_task($node, 'echo after', 'demo', agent => 'shell');
settles($node, $other, 'completed', 'after a table lock the next task runs', 15);
is(dispatcher_pid($node), $before, 'by the same dispatcher');

# ---- the worker comes back ----

sql($node, "SELECT pg_terminate_backend($before)");
ok(until_true(sub { my $pid = dispatcher_pid($node); $pid ne '' && $pid ne $before }, 2),
	'pg_terminate_backend while agents stream: back in 2 s');
$other = run_task($node, 'echo again', 'demo', agent => 'shell', priority => 10);
sql($node, "SELECT boocoder.cancel(id) FROM boocoder.tasks WHERE id IN ($flood) AND state IN ('pending', 'running')");
settles($node, $other, 'completed', 'and serves', 20);
ok(until_true(sub { sql($node, "SELECT count(*) FROM boocoder.tasks WHERE id IN ($flood) AND state IN ('pending', 'running')") eq '0' }),
	'all streams end when cancelled');
ok(none_left($node), 'no agent process is left');

# ---- statistics, names ----

ok(until_true(sub { sql($node, q{SELECT n_tup_ins > 0 FROM pg_stat_user_tables WHERE relname = 'events'}) eq 't' }),
	'what the worker wrote is in the statistics that autovacuum reads');
is(sql($node, q{SELECT string_agg(DISTINCT backend_type, ', ' ORDER BY backend_type) FROM pg_stat_activity WHERE backend_type LIKE 'boocoder%'}),
	'boocoder dispatcher, boocoder launcher', 'the workers have names in pg_stat_activity');

# A server that is read-only by default.
$node->append_conf('postgresql.conf', 'default_transaction_read_only = on');
$node->restart;
ok(wait_dispatcher($node), 'default_transaction_read_only: the dispatcher is there');
$other = sql($node, q{SET default_transaction_read_only = off; SELECT boocoder.run('echo rw', 'demo', agent => 'shell')});
settles($node, $other, 'completed', 'and works', 15);

$node->stop('fast');
done_testing();

sub none_left_of
{
	my ($id) = @_;
	return until_true(sub {
		!processes(sub { $_[0]{environ} =~ /^BOOCODER_TASK_ID=$id$/m && $_[0]{environ} =~ /^BOOCODER_WORKTREE=\Q$scratch\E/m }) });
}
