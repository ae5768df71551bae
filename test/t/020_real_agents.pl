# SPDX-License-Identifier: PostgreSQL
#
# Real coding agents, unmodified, as test/install-agents.sh puts them: each runs in its worktree and in the sandbox,
# talks to the scripted model of test/agents/llm-stub.mjs, and edits files for real.
#
# The provider rows below are the ones a user would write, but for the address of the model.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use Cwd qw(abs_path);
use IPC::Run ();
use Test::More;

my $bin = abs_path($ENV{BOOCODER_AGENTS_DIR} || "$FindBin::RealBin/../../.build/agents") // '(nowhere)';
if ($ENV{BOOCODER_SKIP_REAL_AGENTS})
{
	diag("\n*** The tests with real agents are SKIPPED because BOOCODER_SKIP_REAL_AGENTS is set. ***\n");
	plan skip_all => 'BOOCODER_SKIP_REAL_AGENTS is set';
}
-x "$bin/bin/$_" or BAIL_OUT("$bin/bin/$_ is missing: run test/install-agents.sh, or set BOOCODER_SKIP_REAL_AGENTS=1")
  for qw(node opencode qwen);

# ---- the model ----

my $log = "$scratch/llm.log";
my ($stub_in, $stub_out) = ('', '');
my $stub = IPC::Run::start([ "$bin/bin/node", "$agents_dir/llm-stub.mjs", '--port-file', "$scratch/port", '--log', $log ],
	'<', \$stub_in, '>', \$stub_out, '2>&1');
ok(until_true(sub { -s "$scratch/port" }, 20), 'the scripted model listens') or BAIL_OUT($stub_out);
chomp(my $port = slurp("$scratch/port"));
my $url = "http://127.0.0.1:$port/v1";

sub requests
{
	my ($pattern) = @_;
	return grep { json->encode($_->{script} // []) =~ $pattern } map { json->decode($_) } split /\n/, -e $log ? slurp($log) : '';
}

# ---- the server ----

# Beside the agents, the sandbox shows the settings that an administrator prepared for qwen: it must not report home.
spew("$scratch/settings/qwen.json",
	json->encode({ privacy => { usageStatisticsEnabled => JSON::PP::false }, telemetry => { enabled => JSON::PP::false },
		general => { disableAutoUpdate => JSON::PP::true, enableAutoUpdate => JSON::PP::false } }));

my $node = new_node('real', conf => <<"CONF");
boocoder.sandbox_ro_paths = '$bin:$scratch/settings'
boocoder.handshake_timeout = '60s'
boocoder.cancel_grace = '3s'
CONF
my $repo = make_repo('real', { 'hello.txt' => "hello\n", 'src/old.txt' => "old\n" });
add_project($node, 'demo', $repo);
ok(wait_dispatcher($node), 'the dispatcher is there');

# opencode takes its whole configuration from the environment: one provider, which is the scripted model.
my $opencode = json->encode({
	autoupdate => JSON::PP::false, share => 'disabled',
	model => 'stub/stub-model', small_model => 'stub/stub-small', enabled_providers => ['stub'],
	provider => {
		stub => {
			npm => '@ai-sdk/openai-compatible', name => 'Scripted',
			options => { baseURL => $url, apiKey => 'none' },
			models => {
				'stub-model' => { name => 'Scripted', limit => { context => 128000, output => 8000 },
					cost => { input => 2, output => 8, cache_read => 0.5 } },
				'stub-small' => { name => 'Small', cost => { input => 1, output => 1 } } } } } });
sql($node, 'SELECT boocoder.register_provider(' . join(', ',
	"'real-opencode'", "'acp'", "ARRAY['$bin/bin/opencode', 'acp']",
	literal(json->encode({
		OPENCODE_CONFIG_CONTENT => $opencode,
		OPENCODE_DISABLE_AUTOUPDATE => '1',
		OPENCODE_DISABLE_MODELS_FETCH => '1',
		OPENCODE_DISABLE_LSP_DOWNLOAD => '1',
		OPENCODE_DISABLE_DEFAULT_PLUGINS => '1' }))) . ')');

# qwen takes address, key and model from the variables of the OpenAI client.
sql($node, 'SELECT boocoder.register_provider(' . join(', ',
	"'real-qwen'", "'acp'", "ARRAY['$bin/bin/qwen', '--acp', '--auth-type', 'openai']",
	literal(json->encode({
		OPENAI_BASE_URL => $url,
		OPENAI_API_KEY => 'none',
		OPENAI_MODEL => 'stub-model',
		QWEN_CODE_SYSTEM_SETTINGS_PATH => "$scratch/settings/qwen.json" }))) . ')');

for my $agent (qw(real-opencode real-qwen))
{
	# ---- an edit, end to end ----

	my $task = run_task($node, "!say Working.\n!read hello.txt\n!write hello.txt hello from $agent\\n\n!write $agent/new.txt new\\n\n!run rm src/old.txt\n!end All good.",
		'demo', agent => $agent);
	settles($node, $task, 'completed', "$agent: a task completes");
	like(text_of($node, $task), qr/Working\..*All good\./s, "$agent: what the model said is in the parts");
	my @calls = sql_rows($node, "SELECT payload FROM boocoder.message_parts WHERE task_id = $task AND kind = 'tool_call' ORDER BY seq");
	is(scalar(@calls), 4, "$agent: four tool calls");
	is(join(' ', map { $_->{payload}{status} } @calls), 'completed completed completed completed', "$agent: each of them completed");
	is(sql($node, "SELECT string_agg(kind || ' ' || path, ', ' ORDER BY path) FROM boocoder.pending_changes WHERE task_id = $task"),
		"modify hello.txt, add $agent/new.txt, delete src/old.txt", "$agent: its edits wait");
	is(slurp("$repo/src/old.txt"), "old\n", "$agent: the project is untouched");
	cmp_ok(scalar(requests(qr/hello from $agent/)), '>=', 5, "$agent: the model was asked for each step");

	# ---- usage: five model calls, each 1000 in (200 cached) and 50 out (10 reasoning) ----

	my $usage = sql_row($node, "SELECT sum(input_tokens) AS input, sum(output_tokens) AS output, sum(cached_tokens) AS cached, sum(cost_usd) AS cost, count(*) AS rows"
		. " FROM boocoder.usage_events WHERE task_id = $task");
	if ($agent eq 'real-opencode')
	{
		# It reports the tokens of the last call only, but the cost of all five.
		is(json->encode($usage), json->encode({ rows => 1, input => 800, output => 40, cached => 200, cost => 0.0105 }),
			"$agent: tokens and cost are in the ledger");
	}
	else
	{
		is(json->encode($usage), json->encode({ rows => 1, input => 4000, output => 250, cached => 1000, cost => 0 }),
			"$agent: the tokens of all five calls are in the ledger");
	}

	# ---- a follow-up in the same chat, then apply ----

	my $more = sql($node, "SELECT boocoder.send($task, '!write $agent/second.txt second')");
	settles($node, $more, 'completed', "$agent: a follow-up completes");
	sql($node, "SELECT boocoder.apply($more)");
	ok(until_true(sub { sql($node, "SELECT bool_and(status = 'applied') FROM boocoder.pending_changes WHERE task_id = $more") eq 't' }),
		"$agent: everything is applied")
	  or diag(sql($node, "SELECT path, status, error FROM boocoder.pending_changes WHERE task_id = $more"));
	is(slurp("$repo/hello.txt"), "hello from $agent\n", "$agent: the file in the project has the edit");
	ok(-e "$repo/$agent/new.txt" && -e "$repo/$agent/second.txt" && !-e "$repo/src/old.txt", "$agent: and so have the others");

	# ---- cancel while the model does not answer ----

	my $hanging = run_task($node, "!hang $agent", 'demo', agent => $agent);
	ok(until_true(sub { requests(qr/!hang $agent/) > 0 }), "$agent: waits for its model");
	sql($node, "SELECT boocoder.cancel($hanging)");
	settles($node, $hanging, 'cancelled', "$agent: is cancelled", 90);
	# the follow-up's is kept for the next one
	sql($node, 'UPDATE boocoder.chats SET closed_at = now()');
	ok(none_left($node, undef, 5), "$agent: no process is left");

	# ---- a model that refuses the key ----

	my $refused = run_task($node, '!status 401', 'demo', agent => $agent);
	settles($node, $refused, 'failed', "$agent: a model that answers 401 fails the task");
	like(task_row($node, $refused)->{failure_reason}, qr/^(?:agent_error|auth_required)$/, "$agent: with its reason");

	# The next agent finds the same start.
	spew("$repo/hello.txt", "hello\n");
	spew("$repo/src/old.txt", "old\n");
}

$stub->kill_kill;
$node->stop('fast');
done_testing();
