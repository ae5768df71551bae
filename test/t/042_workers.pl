# SPDX-License-Identifier: PostgreSQL
#
# Launcher and dispatcher as members of the server: what may end them and what may not, which databases are served, and
# what happens when descriptors are short.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use Test::More;

my $node = new_node('workers', conf => "max_prepared_transactions = 5\nboocoder.max_databases = 4\nmax_worker_processes = 16");
add_project($node, 'demo', make_repo('workers'));
add_shell_agent($node, 'shell');
ok(wait_dispatcher($node), 'the dispatcher is there');

# ---- what does not end a dispatcher ----

my $pid = dispatcher_pid($node);
my $task = run_task($node, 'sleep 2; echo through', 'demo', agent => 'shell', max_attempts => 1);
ok(until_true(sub { task_state($node, $task) eq 'running' }), 'a task runs');
sql($node, "SELECT pg_cancel_backend($pid)") for 1 .. 5;
settles($node, $task, 'completed', 'pg_cancel_backend() of the dispatcher ends no task', 20);
is(dispatcher_pid($node), $pid, 'nor the dispatcher');
my $launcher = sql($node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'boocoder launcher'");
sql($node, "SELECT pg_cancel_backend($launcher)");

sql($node, 'CREATE ROLE creator LOGIN CREATEDB');
like(sql_error($node, 'SET ROLE creator; CREATE DATABASE stolen TEMPLATE postgres'), qr/permission denied to copy database/,
	'who may create databases, but not copy this one, is refused');
is(dispatcher_pid($node), $pid, 'and has not moved the dispatcher out of the way');
is(sql($node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'boocoder launcher'"), $launcher, 'the launcher is still the same');

# ---- databases that come and go ----

my $slowest = 0;
for (1 .. 6)
{
	sql($node, 'CREATE DATABASE brief');
	my $began = now();
	sql($node, 'DROP DATABASE brief');
	$slowest = now() - $began if now() - $began > $slowest;
}
cmp_ok($slowest, '<', 2, sprintf('DROP DATABASE right after CREATE DATABASE takes no time (%.1f s at most)', $slowest));

sql($node, 'CREATE DATABASE prepared');
sql($node, q{BEGIN; CREATE EXTENSION boocoder; PREPARE TRANSACTION 'ext'}, 'prepared');
is(dispatcher_pid($node, 'prepared'), '', 'an extension that is prepared has no dispatcher');
sql($node, q{COMMIT PREPARED 'ext'}, 'prepared');
ok(wait_dispatcher($node, 3, 'prepared'), 'one that is committed then has');
sql($node, q{BEGIN; DROP EXTENSION boocoder; PREPARE TRANSACTION 'ext'}, 'prepared');
sql($node, q{COMMIT PREPARED 'ext'}, 'prepared');
ok(until_true(sub { dispatcher_pid($node, 'prepared') eq '' }, 5), 'and a prepared DROP EXTENSION ends it');

sql($node, q{BEGIN; SELECT boocoder.run('echo two phases', 'demo', agent => 'shell'); PREPARE TRANSACTION 'task'});
reconfigure($node, "SET boocoder.poll_interval = '60s'");
sleep 1;
my $began = now();
sql($node, q{COMMIT PREPARED 'task'});
$task = sql($node, "SELECT id FROM boocoder.tasks WHERE input = 'echo two phases'");
settles($node, $task, 'completed', 'a prepared task runs once it is committed', 10);
cmp_ok(now() - $began, '<', 5, 'without waiting for the poll');
reconfigure($node, 'RESET boocoder.poll_interval');

sql($node, 'CREATE DATABASE closed');
sql($node, 'CREATE EXTENSION boocoder', 'closed');
ok(wait_dispatcher($node, 3, 'closed'), 'another database is served');
sql($node, 'ALTER DATABASE closed ALLOW_CONNECTIONS false');
my $gone = dispatcher_pid($node, 'closed');
sql($node, "SELECT pg_terminate_backend($gone)");
ok(until_true(sub { dispatcher_pid($node, 'closed') eq '' }), 'one that allows no connections is not');
sql($node, 'CREATE DATABASE other');
sql($node, 'ALTER DATABASE closed ALLOW_CONNECTIONS true');
ok(wait_dispatcher($node, 5, 'closed'), 'until it allows them again');

# boocoder.max_databases is 4: those without the extension do not count.
sql($node, "CREATE DATABASE none_$_") for 1 .. 5;
sql($node, 'CREATE DATABASE late');
sleep 1;
sql($node, 'CREATE EXTENSION boocoder', 'late');
ok(wait_dispatcher($node, 3, 'late'), 'a database with the extension has a dispatcher, however many there are without');
$node->restart;
ok(wait_dispatcher($node, 15, $_), "$_ has one after a restart") for qw(postgres closed late);

# ---- calls of ordinary backends ----

my $session = session_open($node);
my $backend = $session->query_safe('SELECT pg_backend_pid()');
for (1 .. 3)
{
	$session->query(q{SET statement_timeout = '200ms'; SELECT boocoder._inspect('/', ARRAY['sh', '-c', 'sleep 60'])});
	like($session->{stderr}, qr/statement timeout/, 'a call is broken off');
	$session->{stderr} = '';
}
$session->query_safe('SET statement_timeout = 0');
my @children = grep { /^\S+ \(.*?\) \S+ $backend / } map { eval { slurp($_) } // () } glob '/proc/[0-9]*/stat';
is(scalar @children, 0, 'a call that is broken off leaves no process, not even a dead one');
session_close($session);

# ---- few descriptors ----

$node->append_conf('postgresql.conf', "max_files_per_process = 64\nboocoder.max_running = 60");
$node->restart;
ok(wait_dispatcher($node, 15), 'the dispatcher is there with few descriptors');
$pid = dispatcher_pid($node);
my @many = map { run_task($node, 'sleep 0.5', 'demo', agent => 'shell', max_attempts => 1) } 1 .. 30;
ok(until_true(sub { sql($node, 'SELECT count(*) FROM boocoder.tasks WHERE state IN (\'pending\', \'running\')') eq '0' }, 60),
	'more tasks than it can have runners for all end');
is(sql($node, "SELECT count(*) FROM boocoder.tasks WHERE id >= $many[0] AND state <> 'completed'"), 0, 'and none of them fails for it');
is(dispatcher_pid($node), $pid, 'under the same dispatcher');

$node->stop('fast');
done_testing();
