# SPDX-License-Identifier: PostgreSQL
#
# What is sent between dispatcher and runners in several frames, or in many at once: a diff and a prompt of megabytes, and
# the end of a turn right behind a flood, from an agent that stays and so sends nothing more.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use Test::More;

my $node = new_node('large');
my $repo = make_repo('large', { 'a.txt' => "one\n" });
add_project($node, 'demo', $repo);
ok(wait_dispatcher($node), 'the dispatcher is there');
add_shell_agent($node, 'shell');
add_fake_acp($node, 'fake');

my $task = run_task($node, 'seq 1 700000 > big.txt', 'demo', agent => 'shell');
settles($node, $task, 'completed', 'a diff of 5 MB', 60);
is(sql($node, "SELECT path || ' ' || (length(diff) > 5000000) FROM boocoder.pending_changes WHERE task_id = $task"), 'big.txt true', 'is offered whole');
sql($node, "SELECT boocoder.apply($task)");
ok(until_true(sub { sql($node, "SELECT string_agg(status, ',') FROM boocoder.pending_changes WHERE task_id = $task") eq 'applied' }), 'and applied');
is(slurp("$repo/big.txt"), join('', map { "$_\n" } 1 .. 700_000), 'byte for byte');

sql($node, q(SELECT boocoder.register_provider('count', 'command', ARRAY['/bin/sh', '-c', 'wc -c > count.txt'])));
$task = sql($node, q(SELECT boocoder.run(repeat('é€😀x', 250000), 'demo', agent => 'count')));
settles($node, $task, 'completed', 'a prompt of 2.5 MB', 60);
like(sql($node, "SELECT diff FROM boocoder.pending_changes WHERE task_id = $task"), qr/^\+2500000$/m, 'arrives whole');

# The share of one runner in a pass of the dispatcher is half a megabyte: the ends of these turns lie around that.
my $chat = new_chat($node);
my $session = sql($node, "SELECT session_id FROM boocoder.chats WHERE id = $chat");
my %state;
for my $n (1 .. 30)
{
	my $turn = run_task($node, 'flood ' . (300 + 16 * $n) . ' 1024; text After.', 'demo', agent => 'fake', session => $session, chat => $chat);
	my $state = sql($node, "SELECT boocoder.wait($turn, '20 s')");
	$state{$state}++;
	last if $state ne 'completed';
}
is(join(' ', %state), 'completed 30', 'turns of an agent that stays, each with a flood before its end, end');

$node->stop;
done_testing();
