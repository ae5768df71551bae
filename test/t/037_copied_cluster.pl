# SPDX-License-Identifier: PostgreSQL
#
# A copy of the cluster starts on the same host: what the original has at work is not the copy's to end.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = new_node('original', init => { allows_streaming => 1 });
my $repo = make_repo('original', { 'a.txt' => "one\n" });
add_project($node, 'demo', $repo);
ok(wait_dispatcher($node), 'the dispatcher is there');
add_shell_agent($node, 'shell');
$node->backup('copy');
my $task = run_task($node, 'echo begun; sleep 6; echo ended', 'demo', agent => 'shell');
ok(until_true(sub { task_state($node, $task) eq 'running' && agent_pids($node) }), 'a task is at work');

my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init_from_backup($node, 'copy');
$copy->append_conf('postgresql.conf', 'boocoder.max_running = 0');
$copy->start;
ok(wait_dispatcher($copy), 'a dispatcher of the copy is there');
is(sql($copy, q(SELECT boocoder._host() ->> 'origin')), sql($node, q(SELECT boocoder._host() ->> 'origin')), 'of the same origin');
sleep 1;
settles($node, $task, 'completed', 'the task goes on to its end');
is(sql($node, "SELECT attempt FROM boocoder.tasks WHERE id = $task"), 1, 'the first time');
unlike(slurp($copy->logfile), qr/a runner that an earlier dispatcher/, 'the copy ended nothing');

$copy->stop;
$node->stop;
done_testing();
