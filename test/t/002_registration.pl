# SPDX-License-Identifier: PostgreSQL
#
# When a dispatcher runs and when it doesn't: it follows the extension's existence in each database, by itself.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use PostgreSQL::Test::Cluster;
use Test::More;

# ---- without the preload ----

my $plain = new_node('plain', preload => 0, extension => 0);
my $said = '';
$plain->psql('postgres', 'CREATE EXTENSION boocoder', stderr => \$said);
like($said, qr/shared_preload_libraries/, 'CREATE EXTENSION without the preload names the setting to change');
is(dispatcher_pid($plain), '', 'no dispatcher without the preload');
sql($plain, "INSERT INTO boocoder.projects (name, path) VALUES ('p', '/nowhere')");
sql($plain, 'INSERT INTO boocoder.sessions (project_id) VALUES (1)');
is(sql($plain, 'DELETE FROM boocoder.sessions RETURNING id'), 1, 'a session can be deleted where the library was never loaded');
$plain->stop;
$plain->append_conf('postgresql.conf', "shared_preload_libraries = 'boocoder'");
$plain->start;
my $there = sql($plain, "SELECT count(*) FROM pg_extension WHERE extname = 'boocoder'");
sql($plain, 'CREATE EXTENSION boocoder') unless $there;
ok(wait_dispatcher($plain, 5), 'with the preload the same database gets its dispatcher');
$plain->stop;

# ---- CREATE and DROP EXTENSION ----

my $node = new_node('main', extension => 0, init => { allows_streaming => 1 });

sub gone_within
{
	my ($database, $seconds) = @_;
	return until_true(sub { dispatcher_pid($node, $database) eq '' }, $seconds);
}

is(dispatcher_pid($node), '', 'no dispatcher where the extension is not');
sql($node, 'CREATE EXTENSION boocoder');
ok(wait_dispatcher($node, 2), 'a dispatcher within 2 s of CREATE EXTENSION');
my $slots = sql($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'boocoder%'});
cmp_ok($slots, '<=', 2, 'at most two workers with one database');

sql($node, 'CREATE DATABASE other');
sql($node, 'BEGIN; CREATE EXTENSION boocoder; ROLLBACK', 'other');
# Nothing tells that nothing is going to happen; a dispatcher that comes after the rolled back one bounds the time.
sql($node, 'CREATE DATABASE later');
sql($node, 'CREATE EXTENSION boocoder', 'later');
ok(wait_dispatcher($node, 2, 'later'), 'a second database gets its own');
is(dispatcher_pid($node, 'other'), '', 'a rolled back CREATE EXTENSION starts nothing');

my $before = dispatcher_pid($node, 'later');
sql($node, 'BEGIN; DROP EXTENSION boocoder CASCADE; ROLLBACK', 'later');
my $repo = make_repo('registration');
sub works
{
	my ($database) = @_;
	add_project($node, 'demo', $repo, $database)
	  unless sql($node, 'SELECT count(*) FROM boocoder.projects', $database);
	sql($node, "SELECT count(*) FROM boocoder.providers WHERE name = 'shell'", $database) eq '1'
	  or add_shell_agent($node, 'shell', $database);
	my $task = run_task($node, 'echo fine', 'demo', agent => 'shell', database => $database);
	return wait_task($node, $task, 'completed|failed', 20, $database) eq 'completed';
}
ok(works('later'), 'a rolled back DROP EXTENSION leaves a dispatcher that works');

sql($node, 'DROP EXTENSION boocoder CASCADE', 'later');
ok(gone_within('later', 2), 'the dispatcher ends with DROP EXTENSION');

sql($node, 'CREATE EXTENSION boocoder', 'later');
ok(wait_dispatcher($node, 2, 'later'), 'and is back after CREATE EXTENSION');
$before = dispatcher_pid($node, 'later');
sql($node, 'BEGIN; DROP EXTENSION boocoder CASCADE; CREATE EXTENSION boocoder; COMMIT', 'later');
ok(until_true(sub { my $pid = dispatcher_pid($node, 'later'); $pid ne '' && $pid ne $before }, 4),
	'DROP and CREATE in one transaction: a new dispatcher for the new extension');
ok(works('later'), 'which works');

# ---- several databases at once ----

for my $name (qw(one two three))
{
	sql($node, "CREATE DATABASE $name");
	sql($node, 'CREATE EXTENSION boocoder', $name);
}
for my $name (qw(one two three))
{
	ok(wait_dispatcher($node, 3, $name), "database $name has a dispatcher");
	ok(works($name), "and runs tasks in $name");
}
my $workers = sql($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'boocoder%'});
my $databases = sql($node, q{SELECT count(DISTINCT datname) FROM pg_stat_activity WHERE backend_type = 'boocoder dispatcher'});
is($workers, $databases + 1, 'one worker a database and one launcher');

# ---- databases come and go ----

sql($node, 'DROP DATABASE two');
is(sql($node, q{SELECT count(*) FROM pg_database WHERE datname = 'two'}), '0',
	'DROP DATABASE of a served database needs no manual step');
sql($node, 'CREATE DATABASE copied TEMPLATE one');
ok(wait_dispatcher($node, 10, 'copied'), 'a copy of a served database gets a dispatcher');
ok(wait_dispatcher($node, 10, 'one'), 'and the template still has, or again has, its own');
ok(works('copied'), 'the copy runs tasks');
sql($node, 'ALTER DATABASE three RENAME TO renamed');
ok(wait_dispatcher($node, 10, 'renamed'), 'a renamed database is served');

# ---- a worker that dies comes back ----

my $pid = dispatcher_pid($node);
sql($node, "SELECT pg_terminate_backend($pid)");
ok(until_true(sub { my $now = dispatcher_pid($node); $now ne '' && $now ne $pid }, 2),
	'pg_terminate_backend of the dispatcher: back in 2 s');
my $launcher = sql($node, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'boocoder launcher'});
sql($node, "SELECT pg_terminate_backend($launcher)");
ok(until_true(sub {
	my $now = sql($node, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'boocoder launcher'});
	$now ne '' && $now ne $launcher }, 3), 'and so is the launcher');
ok(works('postgres'), 'tasks run after that');

# ---- standby ----

$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
my $waiting = run_task($node, 'echo "on the new primary"', 'demo', agent => 'shell', run_at => \"now() + interval '1 hour'");
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
is(sql($standby, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'boocoder%'}), '0',
	'a standby runs no worker');
$node->stop('immediate');
$standby->promote;
ok(wait_dispatcher($standby, 5), 'the dispatcher starts by itself at promotion');
sql($standby, "UPDATE boocoder.tasks SET run_at = now() WHERE id = $waiting");
settles($standby, $waiting, 'completed', 'the new primary runs what was waiting', 20);
$standby->stop('fast');

done_testing();
