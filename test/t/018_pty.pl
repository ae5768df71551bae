# SPDX-License-Identifier: PostgreSQL
#
# The transport pty: programs for people, on a terminal of their own.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use MIME::Base64;
use Test::More;
use Time::HiRes qw(sleep);

my $node = new_node('pty', conf => "boocoder.turn_inactivity_timeout = '3s'\nboocoder.cancel_grace = '500ms'\nboocoder.term_grace = '500ms'\nboocoder.handshake_timeout = '1s'");
my $repo = make_repo('pty');
add_project($node, 'demo', $repo);
ok(wait_dispatcher($node), 'the dispatcher is there');
# The agents that the sandbox shows are beside fake-acp.
my $program = sql($node, "SELECT command[1] FROM boocoder.providers WHERE name = '" . add_fake_acp($node, 'fake') . "'");
$program =~ s/fake-acp$/fake-pty/;
sql($node, "SELECT boocoder.register_provider('typed', 'pty', ARRAY['$program'])");
sql($node, "SELECT boocoder.register_provider('given', 'pty', ARRAY['$program', '{prompt}', '--model', '{model}'])");
sql($node, "SELECT boocoder.register_provider('silent', 'pty', ARRAY['/bin/sh', '-c', 'read line; echo \"got \$line\"'])");

for my $sandbox (qw(on off))
{
	reconfigure($node, "SET boocoder.sandbox = '$sandbox'");
	sleep 0.3;
	my $name = "sandbox $sandbox";

	my $task = run_task($node, "say hello; tty; spin; colour red; ask; write $sandbox.txt content", 'demo', agent => 'typed');
	settles($node, $task, 'completed', "$name: a prompt that is typed");
	is(said_so_far($node, $task), "fake-pty> hello\ntty 24 100\nxterm-256color\ndone\nred\nanswer ESC[1;1R\n",
		"$name: a terminal with a size, that answers; plain text, the last state of a spinner");
	is(sql($node, "SELECT path FROM boocoder.pending_changes WHERE task_id = $task"), "$sandbox.txt", "$name: the work is a change");
	is(task_row($node, $task)->{transport}, 'pty', "$name: the transport is on record");

	$task = run_task($node, "say two words", 'demo', agent => 'given');
	settles($node, $task, 'completed', "$name: a prompt that is an argument");
	is(said_so_far($node, $task), "two words\n", "$name: is not typed, too");

	$task = run_task($node, 'x', 'demo', agent => 'silent');
	settles($node, $task, 'completed', "$name: a program that says nothing first");
	is(said_so_far($node, $task), "got x\n", "$name: is typed to all the same");

	for my $case ([ 'exit 3', 'exit_nonzero' ], [ 'die', 'killed_by_signal' ], [ 'hang', 'inactivity_timeout' ])
	{
		my ($words, $reason) = @$case;
		$task = run_task($node, "say begin; $words", 'demo', agent => 'typed');
		settles($node, $task, 'failed', "$name: $words", 20);
		is(task_row($node, $task)->{failure_reason}, $reason, "$name: $words: reason");
		like(said_so_far($node, $task), qr/begin/, "$name: $words: the text until then is kept");
	}

	$task = run_task($node, 'child; say up; hang', 'demo', agent => 'typed');
	ok(until_true(sub { said_so_far($node, $task) =~ /up/ }), "$name: a program under way");
	sql($node, "SELECT boocoder.cancel($task)");
	settles($node, $task, 'cancelled', "$name: is cancelled", 10);
	ok(none_left($node), "$name: with what it left in a session of its own");

	# ^C is for what runs on the terminal, not for the sandbox around it.
	$task = run_task($node, 'trap; say up; hang', 'demo', agent => 'typed');
	ok(until_true(sub { said_so_far($node, $task) =~ /up/ }), "$name: a program that takes ^C as a request");
	sql($node, "SELECT boocoder.cancel($task)");
	settles($node, $task, 'cancelled', "$name: is cancelled", 10);
	like(said_so_far($node, $task), qr/good-bye\n$/, "$name: and may say good-bye");
	$task = run_task($node, 'child; deaf; say up; hang', 'demo', agent => 'typed');
	ok(until_true(sub { said_so_far($node, $task) =~ /up/ }), "$name: a program that ignores ^C and SIGTERM");
	sql($node, "SELECT boocoder.cancel($task)");
	settles($node, $task, 'cancelled', "$name: is cancelled, too", 10);
	ok(none_left($node), "$name: and gone");

	# A question is seen while it waits for an answer, and stays.
	$task = run_task($node, 'say begin; part Sure? [y/N]; hang', 'demo', agent => 'typed');
	ok(until_true(sub { said_so_far($node, $task) =~ /\nSure\? \[y\/N\]\?$/ }), "$name: a question is shown");
	is(task_state($node, $task), 'running', "$name: while it waits");
	settles($node, $task, 'failed', "$name: that nobody answers", 20);
	is(text_of($node, $task), "fake-pty> begin\nSure? [y/N]?", "$name: it is the end of the text");

	# The kernel cuts a line of more than 4095 bytes, unless the program reads keys.
	$task = run_task($node, 'length; say ' . 'x' x 4071, 'demo', agent => 'typed');
	settles($node, $task, 'completed', "$name: a line of 4095 bytes with its brackets");
	like(said_so_far($node, $task), qr/length 4083\n/, "$name: arrives");
	$task = run_task($node, 'length; say ' . 'x' x 4072, 'demo', agent => 'typed');
	settles($node, $task, 'failed', "$name: a longer one", 20);
	is(task_row($node, $task)->{failure_reason}, 'line_too_long', "$name: is refused");
	like(task_row($node, $task)->{error}, qr/4095 bytes/, "$name: clearly");
	unlike(said_so_far($node, $task), qr/length/, "$name: the program was given nothing of it");
	$task = run_task($node, 'length; say ' . 'x' x 50_000, 'demo', agent => 'given');
	settles($node, $task, 'completed', "$name: as an argument");
	like(said_so_far($node, $task), qr/length 50012\n/, "$name: it is taken");
	for my $late (0, 1)
	{
		sql($node, "UPDATE boocoder.providers SET env = '{\"FAKE_PTY_KEYS\": \"$late\"}' WHERE name = 'typed'");
		$task = run_task($node, 'length; say ' . 'x' x 50_000, 'demo', agent => 'typed');
		settles($node, $task, 'completed', "$name: by keys, read $late s after the prompt");
		like(said_so_far($node, $task), qr/length 50012\n/, "$name: it is taken, too");
	}
	sql($node, "UPDATE boocoder.providers SET env = '{}' WHERE name = 'typed'");
	$task = run_task($node, join("\n", 'lines 200', ('y' x 200) x 200), 'demo', agent => 'typed');
	settles($node, $task, 'completed', "$name: 40 kB in lines, read slowly");
	like(said_so_far($node, $task), qr/lines 40206\n/, "$name: arrive");

	# An agent whose handshake fails goes on as a program for people.
	sql($node, "SELECT boocoder.register_provider('both', 'acp', ARRAY['$program'])");
	sql($node, "UPDATE boocoder.providers SET fallback = 'pty' WHERE name = 'both'");
	$task = run_task($node, 'say fell back', 'demo', agent => 'both');
	settles($node, $task, 'completed', "$name: the fallback of a handshake", 20);
	like(said_so_far($node, $task), qr/fell back\n$/, "$name: does the task");
	is(task_row($node, $task)->{transport}, 'pty', "$name: and is on record");
	is(sql($node, "SELECT payload->>'transport' FROM boocoder.events WHERE task_id = $task AND kind = 'status' AND payload->>'phase' = 'fallback'"), 'pty', "$name: as an event, too");
}

sql($node, q(UPDATE boocoder.providers SET env = '{"FAKE_PTY_BUSY": "1"}' WHERE name = 'typed'));
my $busy = run_task($node, 'say heard', 'demo', agent => 'typed');
settles($node, $busy, 'completed', 'a program whose screen never rests', 20);
like(said_so_far($node, $busy), qr/heard\n$/, 'is typed to, too');
sql($node, q(UPDATE boocoder.providers SET env = '{}' WHERE name = 'typed'));

sql($node, "UPDATE boocoder.providers SET keep_raw = true WHERE name = 'typed'");
my $task = run_task($node, 'colour red', 'demo', agent => 'typed');
settles($node, $task, 'completed', 'the raw bytes are kept on request');
my $raw = join '', map { decode_base64($_->{b}) }
  sql_rows($node, "SELECT payload->>'base64' AS b FROM boocoder.events WHERE task_id = $task AND kind = 'log' AND payload->>'stream' = 'raw' ORDER BY seq");
like($raw, qr/\e\[31mred\e\[0m\r+\n/, 'with all there is in them');
ok(none_left($node), 'no process is left');
$node->stop('fast');
done_testing();
