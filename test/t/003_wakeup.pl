# SPDX-License-Identifier: PostgreSQL
#
# A committed task starts at once, however it got in; a rolled back one never does. The poll is a minute away here, so
# only the wake-up at commit can have done it.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use PostgreSQL::Test::Cluster;
use Test::More;

my $node = new_node('wakeup', conf => <<'CONF');
boocoder.poll_interval = '60s'
boocoder.max_running = 8
max_prepared_transactions = 5
CONF
my $repo = make_repo('wakeup');
my $project = add_project($node, 'demo', $repo);
add_shell_agent($node);
ok(wait_dispatcher($node), 'the dispatcher is there');

# How soon counts as at once on a loaded machine; far below the poll.
my $soon = 15;

sub done_soon
{
	my ($input, $what) = @_;
	my $done = until_true(sub {
		sql($node, "SELECT count(*) > 0 AND bool_and(state = 'completed') FROM boocoder.tasks WHERE input = '$input'") eq 't' },
		$soon);
	ok($done, $what);
	diag(sql($node, "SELECT id, state, failure_reason FROM boocoder.tasks WHERE input = '$input'")) unless $done;
}

sql($node, "INSERT INTO boocoder.tasks (project_id, agent, input) VALUES ($project, 'shell', 'echo plain')");
done_soon('echo plain', 'a plain INSERT');

sql($node, "SELECT boocoder.run('echo run', 'demo', agent => 'shell')");
done_soon('echo run', 'boocoder.run');

sql($node, "INSERT INTO boocoder.tasks (project_id, agent, input) SELECT $project, 'shell', 'echo rows' FROM generate_series(1, 5)");
done_soon('echo rows', 'a multi-row INSERT');
is(sql($node, "SELECT count(*) FROM boocoder.tasks WHERE input = 'echo rows'"), '5', 'all five of it');

sql($node, "COPY boocoder.tasks (project_id, agent, input) FROM stdin;\n$project\tshell\techo copy\n\\.\n");
done_soon('echo copy', 'COPY');

sql($node, <<"SQL");
BEGIN;
SAVEPOINT a;
INSERT INTO boocoder.tasks (project_id, agent, input) VALUES ($project, 'shell', 'echo savepoint');
RELEASE a;
SAVEPOINT b;
INSERT INTO boocoder.tasks (project_id, agent, input) VALUES ($project, 'shell', 'echo undone');
ROLLBACK TO b;
COMMIT;
SQL
done_soon('echo savepoint', 'an INSERT in a released savepoint');

sql($node, <<"SQL");
DO \$\$ BEGIN
	INSERT INTO boocoder.tasks (project_id, agent, input) VALUES ($project, 'shell', 'echo do');
END \$\$;
SQL
done_soon('echo do', 'an INSERT from PL/pgSQL');

sql($node, "BEGIN; INSERT INTO boocoder.tasks (project_id, agent, input) VALUES ($project, 'shell', 'echo rolled'); ROLLBACK");
sql($node, "SELECT boocoder.run('echo after', 'demo', agent => 'shell')");
done_soon('echo after', 'a task after a rolled back one');
is(sql($node, "SELECT count(*) FROM boocoder.events WHERE payload::text LIKE '%undone%' OR payload::text LIKE '%rolled%'"),
	'0', 'what was rolled back never ran');

# Not committed is not started, however long it takes: another task comes and goes meanwhile.
my $open = session_open($node);
$open->query_safe("BEGIN; INSERT INTO boocoder.tasks (project_id, agent, input) VALUES ($project, 'shell', 'echo open');");
sql($node, "SELECT boocoder.run('echo beside', 'demo', agent => 'shell')");
done_soon('echo beside', 'a task of another session beside an open transaction');
is(sql($node, "SELECT count(*) FROM boocoder.tasks WHERE input = 'echo open'"), '0', 'the open one is not visible');
$open->query_safe('COMMIT');
done_soon('echo open', 'it starts at its commit');
session_close($open);

# A retry is a wake-up too.
my $failing = run_task($node, 'exit 3', 'demo', agent => 'shell');
is(wait_task($node, $failing, 'failed', $soon), 'failed', 'a task fails');
sql($node, "SELECT boocoder.retry($failing)");
ok(until_true(sub { my $t = task_row($node, $failing); $t->{attempt} == 2 && $t->{state} eq 'failed' }, $soon),
	'retry is dispatched at once');

# ---- what the trigger does not see: the poll finds it ----

$node->append_conf('postgresql.conf', "boocoder.poll_interval = '500ms'");
$node->reload;
sql($node, "SELECT boocoder.run('echo reload', 'demo', agent => 'shell')");
done_soon('echo reload', 'after a reload');

sql($node, <<"SQL");
BEGIN;
INSERT INTO boocoder.tasks (project_id, agent, input) VALUES ($project, 'shell', 'echo prepared');
PREPARE TRANSACTION 'p';
SQL
sql($node, "COMMIT PREPARED 'p'");
done_soon('echo prepared', 'a prepared transaction');

# Replication applies rows like this: without ordinary triggers, so with everything that the sender's ones filled in.
sql($node, <<"SQL");
BEGIN;
SET LOCAL session_replication_role = replica;
INSERT INTO boocoder.tasks (project_id, agent, input) VALUES ($project, 'shell', 'echo replica');
COMMIT;
SQL
done_soon('echo replica', 'an INSERT as replication applies it');

$node->stop('fast');
done_testing();
