# SPDX-License-Identifier: PostgreSQL
#
# An event that the database refuses (a trigger of somebody's, here) fails its task, whenever it comes and whoever else's
# is refused beside it; what the agent changed is kept, and other tasks go on.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use Test::More;

my $node = new_node('refused');
add_project($node, 'demo', make_repo('refused', { 'a.txt' => "one\n" }));
ok(wait_dispatcher($node), 'the dispatcher is there');
add_shell_agent($node, 'shell');
sql($node, q{
	CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF new.payload::text LIKE '%slow poison%' THEN PERFORM pg_sleep(0.5); END IF;
		IF new.payload::text LIKE '%poison%' THEN RAISE EXCEPTION 'not that word'; END IF;
		RETURN new;
	END $$;
	CREATE TRIGGER refuse BEFORE INSERT ON boocoder.events FOR EACH ROW EXECUTE FUNCTION public.refuse()});

my %script = (
	# all of them are at work when the word comes
	'in the middle' => q(echo x > made.txt; echo begun; sleep 2; echo poi''son; sleep 30),
	'as the last word' => q(echo x > made.txt; echo begun; sleep 2; echo poi''son),
	'often' => q(echo x > made.txt; sleep 2; for i in 1 2 3 4 5 6 7 8 9; do echo poi''son; sleep 0.02; done),
	'never' => q(echo x > made.txt; echo begun; sleep 3; echo ended),
);
my %task = map { $_ => run_task($node, $script{$_}, 'demo', agent => 'shell') } sort keys %script;
for my $when ('in the middle', 'as the last word', 'often')
{
	settles($node, $task{$when}, 'failed', "refused $when: the task fails", 20);
	my $row = task_row($node, $task{$when});
	is($row->{failure_reason}, 'bad_event', "refused $when: for that reason");
	like($row->{error}, qr/not that word/, "refused $when: in the words of the trigger");
	is(sql($node, "SELECT path FROM boocoder.pending_changes WHERE task_id = $task{$when}"), 'made.txt',
		"refused $when: what was changed is offered");
}
# Whoever cancels a task gets a cancelled one, whatever its agent's last word was.
my $cancelled = run_task($node, q(trap 'echo poi""son; exit' TERM; echo x > made.txt; echo begun; while :; do sleep 0.05; done), 'demo', agent => 'shell');
ok(until_true(sub { said_so_far($node, $cancelled) =~ /begun/ }), 'a task runs');
sql($node, "SELECT boocoder.cancel($cancelled)");
settles($node, $cancelled, 'cancelled', 'refused when it was cancelled: the task is cancelled', 20);
like(task_row($node, $cancelled)->{error}, qr/not that word/, 'and says what was refused');
# What its agent used is charged all the same, when it was through before the refusal was known.
add_fake_acp($node, 'fake');
my $used = run_task($node, 'turn-usage 10 5 0; text poi; text son; text slow poison', 'demo', agent => 'fake');
settles($node, $used, 'failed', 'refused in the answer of an agent that counts', 20);
is(task_row($node, $used)->{failure_reason}, 'bad_event', 'it fails for that');
cmp_ok(sql($node, "SELECT coalesce(sum(input_tokens), 0) FROM boocoder.usage_events WHERE task_id = $used"), '>', 0, 'its tokens are counted');
settles($node, $task{never}, 'completed', 'a task beside them completes', 20);
is(text_of($node, $task{never}), "begun\nended\n", 'with all it said');

$node->stop;
done_testing();
