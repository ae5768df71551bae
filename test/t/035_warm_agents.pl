# SPDX-License-Identifier: PostgreSQL
#
# Real agents that are kept: two chats and two agents in one session, each pair with a process and a memory of its own.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use BoocoderAgents qw(agents_directory missing_agent agent_rows settings_files);
use IPC::Run ();
use Test::More;

plan skip_all => 'BOOCODER_SKIP_REAL_AGENTS is set' if $ENV{BOOCODER_SKIP_REAL_AGENTS};
my $agents = agents_directory();
my $log = "$scratch/llm.log";
my ($in, $out) = ('', '');
my $stub = IPC::Run::start([ "$agents/bin/node", "$agents_dir/llm-stub.mjs", '--port-file', "$scratch/port", '--log', $log ], '<', \$in, '>', \$out, '2>&1');
ok(until_true(sub { -s "$scratch/port" }, 20), 'the scripted model listens') or BAIL_OUT($out);
chomp(my $port = slurp("$scratch/port"));
my %settings = settings_files();
spew("$scratch/settings/$_", $settings{$_}) for keys %settings;

my $node = new_node('warmreal', conf => <<"CONF");
boocoder.sandbox_ro_paths = '$agents:$scratch/settings'
boocoder.handshake_timeout = '60s'
boocoder.max_running = 4
boocoder.max_warm_backends = 20
CONF
my $repo = make_repo('warmreal', { 'hello.txt' => "hello\n" });
add_project($node, 'demo', $repo);
ok(wait_dispatcher($node), 'the dispatcher is there');
my %rows = map { $_->{name} => $_ } agent_rows("http://127.0.0.1:$port", "$scratch/settings");

sub add_agent
{
	my ($row) = @_;
	my $array = 'ARRAY[' . join(', ', map { literal($_) } @{ $row->{command} }) . ']::text[]';
	sql($node, 'INSERT INTO boocoder.providers (name, label, transport, kind, command, env, default_model) VALUES ('
		  . join(', ', literal($row->{name}), literal($row->{label}), literal($row->{transport}), literal($row->{kind}), $array,
			literal(json->encode($row->{env})), $row->{transport} eq 'acp' ? 'NULL' : literal($row->{model})) . ')');
}

# What the model was asked by one agent for one script, known by a word in it.
sub requests
{
	my ($agent, $word) = @_;
	return grep { $_->{path} =~ m{^/\Q$agent\E/} && grep { /\Q$word\E/ } @{ $_->{script} // [] } }
	  map { json->decode($_) } split /\n/, -e $log ? slurp($log) : '';
}

for my $pair ([qw(opencode-acp qwen-acp)], [qw(goose claude-acp)], [qw(opencode-server codex-acp)])
{
	my @missing = grep { missing_agent($rows{$_}{program}) } @$pair;
	if (@missing) { diag("@missing: not there"); next }
	add_agent($rows{$_}) for @$pair;
	my $session = sql($node, 'INSERT INTO boocoder.sessions (project_id) VALUES (1) RETURNING id');
	my @chats = map { sql($node, "INSERT INTO boocoder.chats (session_id) VALUES ($session) RETURNING id") } 1, 2;
	for my $turn (1, 2)
	{
		for my $chat (@chats)
		{
			for my $agent (@$pair)
			{
				my $task = sql($node, 'INSERT INTO boocoder.tasks (project_id, session_id, chat_id, agent, input, permission_policy)'
					  . " VALUES (1, $session, $chat, '$agent', " . literal("!end $agent-$chat-turn$turn.") . ", 'allow') RETURNING id");
				settles($node, $task, 'completed', "$agent in chat $chat, turn $turn");
				like(text_of($node, $task), qr/\Q$agent-$chat-turn$turn\E/, 'says what it was told to');
			}
		}
	}
	is(sql($node, "SELECT count(*) FROM boocoder.backends WHERE session_id = $session AND state = 'idle' AND turns = 2"), 4, "@$pair: each pair of chat and agent has its process, for both turns");
	is(sql($node, "SELECT count(DISTINCT agent_session_id) FROM boocoder.agent_sessions WHERE session_id = $session"), 4, 'and its session');
	is(sql($node, "SELECT count(DISTINCT worktree_id) FROM boocoder.agent_sessions WHERE session_id = $session"), 1, 'in one worktree');
	for my $agent (@$pair)
	{
		for my $chat (@chats)
		{
			ok((grep { $_->{earlier} } requests($agent, "$agent-$chat-turn2")), "$agent remembers its first turn in chat $chat");
			ok(!(grep { $_->{earlier} } requests($agent, "$agent-$chat-turn1")), 'and nothing before that');
		}
	}
	sql($node, 'SELECT boocoder.close_session(id) FROM boocoder.sessions WHERE closed_at IS NULL');
	ok(until_true(sub { sql($node, "SELECT count(*) FROM boocoder.backends WHERE session_id = $session") == 0 }, 20), 'closing the session ends them');
}
sql($node, "UPDATE boocoder.servers SET last_used_at = '2000-01-01'");
ok(none_left($node, undef, 15), 'no process is left');

$node->stop;
$stub->kill_kill;
done_testing();
