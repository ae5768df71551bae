# SPDX-License-Identifier: PostgreSQL
#
# Real coding agents as test/install-agents.sh puts them, and the provider row of each for the scripted model of
# test/agents/llm-stub.mjs: transport, command, environment. The rows are those a user would write, but for the address
# and names of the model. HOME is empty at the start, so all configuration is in the environment and the arguments.
package BoocoderAgents;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter qw(import);
use File::Basename qw(dirname);
use JSON::PP ();

our @EXPORT_OK = qw(agents_directory missing_agent agent_rows settings_files);

my $json = JSON::PP->new->canonical;
my ($true, $false) = (JSON::PP::true, JSON::PP::false);

# Where the agents are.
sub agents_directory
{
	return abs_path($ENV{BOOCODER_AGENTS_DIR} || dirname(__FILE__) . '/../../../.build/agents') // '(nowhere)';
}

# Why an agent is not there; undef when it is.
sub missing_agent
{
	my ($program) = @_;
	my $bin = agents_directory() . '/bin';

	return if -x "$bin/$program";
	open my $file, '<', "$bin/$program.missing" or return 'not installed: run test/install-agents.sh';
	chomp(my $reason = <$file> // 'not installed');
	return $reason;
}

# Settings of an administrator, which the sandbox has to show: file name => content.
sub settings_files
{
	return (
		# It must not report home, nor ask its model by itself what to remember and what to suggest.
		'qwen.json' => $json->encode({
			privacy => { usageStatisticsEnabled => $false }, telemetry => { enabled => $false },
			memory => { enableManagedAutoMemory => $false, enableManagedAutoDream => $false, enableAutoSkill => $false },
			ui => { enableFollowupSuggestions => $false },
			general => { disableAutoUpdate => $true, enableAutoUpdate => $false } }));
}

# The beginning of a command for a program that reads FILE in its home: a shell writes what VARIABLE holds there, then
# becomes the program.
sub with_file
{
	my ($file, $variable) = @_;
	return ('/bin/sh', '-c',
		"mkdir -p ~/" . dirname($file) . " && printf %s \"\$$variable\" > ~/$file && exec \"\$0\" \"\$@\"");
}

# agent_rows(URL, SETTINGS): what is tested, in order; URL is the address of the model, to which each row adds its name,
# SETTINGS the directory of settings_files. Each row: name, label, program (in bin), transport, kind, command, env,
# version_args, and model, the name under which it knows the scripted model.
sub agent_rows
{
	my ($url, $settings) = @_;
	my $bin = agents_directory() . '/bin';
	my @rows;
	my $add = sub {
		my (%row) = @_;
		$row{version_args} = $row{command}[0] eq '/bin/sh' ? [ '-c', "exec '$bin/$row{program}' --version" ] : ['--version'];
		$row{command}[0] = "$bin/$row{command}[0]" if $row{command}[0] !~ m{^/};
		push @rows, \%row;
	};

	for my $name (qw(opencode-acp opencode-server opencode))
	{
		$add->(
			name => $name, label => 'opencode', program => 'opencode', kind => 'opencode', model => 'stub/stub-model',
			transport => { 'opencode-acp' => 'acp', 'opencode-server' => 'opencode_server', opencode => 'opencode' }->{$name},
			command => $name eq 'opencode'
			? [ 'opencode', 'run', '--format', 'json', '--auto', '--thinking', '-m', '{model}', '-s', '{session}' ]
			: [ 'opencode', $name eq 'opencode-acp' ? 'acp' : 'serve' ],
			env => {
				OPENCODE_CONFIG_CONTENT => $json->encode({
					autoupdate => $false, share => 'disabled', model => 'stub/stub-model', small_model => 'stub/stub-small',
					enabled_providers => ['stub'],
					permission => $name eq 'opencode' ? 'allow' : { edit => 'ask', bash => 'ask' },
					provider => {
						stub => {
							npm => '@ai-sdk/openai-compatible', name => 'Scripted',
							options => { baseURL => "$url/$name/v1", apiKey => 'none' },
							models => {
								'stub-model' => {
									name => 'Scripted', reasoning => $true, limit => { context => 128000, output => 8000 },
									cost => { input => 2, output => 8, cache_read => 0.5 } },
								'stub-small' => { name => 'Small', cost => { input => 1, output => 1 } } } } } }),
				OPENCODE_DISABLE_AUTOUPDATE => '1', OPENCODE_DISABLE_MODELS_FETCH => '1',
				OPENCODE_DISABLE_LSP_DOWNLOAD => '1', OPENCODE_DISABLE_DEFAULT_PLUGINS => '1',
				# In a new home it fetches a library for plugins, 20 MB, in the background.
				npm_config_offline => 'true',
			});
	}

	for my $name (qw(qwen-acp qwen-stream))
	{
		$add->(
			name => $name, label => 'Qwen Code', program => 'qwen', kind => 'qwen', model => 'stub-model',
			transport => $name eq 'qwen-acp' ? 'acp' : 'stream_json',
			command => $name eq 'qwen-acp'
			? [ 'qwen', '--acp', '--auth-type', 'openai' ]
			: [
				'qwen', '--input-format', 'stream-json', '--output-format', 'stream-json', '--include-partial-messages',
				'--auth-type', 'openai', '--approval-mode', '{mode}', '--model', '{model}',
				'--resume', '{session}' ],
			env => {
				OPENAI_BASE_URL => "$url/$name/v1", OPENAI_API_KEY => 'none', OPENAI_MODEL => 'stub-model',
				QWEN_CODE_SYSTEM_SETTINGS_PATH => "$settings/qwen.json",
			});
	}

	for my $name (qw(claude claude-acp))
	{
		$add->(
			name => $name, label => $name eq 'claude' ? 'Claude Code' : 'claude-agent-acp', kind => 'claude', model => 'stub-model',
			program => $name eq 'claude' ? 'claude' : 'claude-agent-acp',
			transport => $name eq 'claude' ? 'stream_json' : 'acp',
			command => $name eq 'claude'
			? [
				'claude', '-p', '--output-format', 'stream-json', '--input-format', 'stream-json', '--include-partial-messages',
				'--verbose', '--permission-prompt-tool', 'stdio', '--model', '{model}', '--permission-mode', '{mode}', '--resume', '{session}' ]
			: ['claude-agent-acp'],
			env => {
				ANTHROPIC_BASE_URL => "$url/$name", ANTHROPIC_API_KEY => 'none', ANTHROPIC_MODEL => 'stub-model',
				ANTHROPIC_DEFAULT_HAIKU_MODEL => 'stub-small', CLAUDE_CODE_MAX_RETRIES => '3',
				# It asks its model what the user might say next, and counts that.
				CLAUDE_CODE_ENABLE_PROMPT_SUGGESTION => 'false',
				CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC => '1', DISABLE_AUTOUPDATER => '1', DISABLE_TELEMETRY => '1',
			});
	}

	# pi reads its models from a file only.
	$add->(
		name => 'pi', label => 'pi', program => 'pi', kind => 'pi', transport => 'stream_json', model => 'stub-model',
		command => [
			with_file('.pi/agent/models.json', 'PI_MODELS'), "$bin/pi", '--mode', 'json', '-p', '--provider', 'stub', '--model', '{model}', '--session', '{session}', '{prompt}' ],
		env => {
			PI_MODELS => $json->encode({
				providers => {
					stub => {
						baseUrl => "$url/pi/v1", api => 'openai-completions', apiKey => 'none',
						models => [
							{
								id => 'stub-model', name => 'Scripted', reasoning => $true, input => ['text'],
								contextWindow => 128000, maxTokens => 8000,
								cost => { input => 2, output => 8, cacheRead => 0.5, cacheWrite => 0 } } ] } } }),
			PI_OFFLINE => '1', PI_SKIP_VERSION_CHECK => '1', PI_TELEMETRY => '0',
		});

	my %codex = (
		model => 'stub-model', model_provider => 'stub', model_reasoning_summary => 'auto', check_for_update_on_startup => $false,
		analytics => { enabled => $false },
	);
	my $provider = sub {
		my ($name) = @_;
		return (name => 'Scripted', base_url => "$url/$name/v1", wire_api => 'responses', env_key => 'STUB_KEY');
	};
	$add->(
		name => 'codex-acp', label => 'codex-acp', program => 'codex-acp', kind => 'codex', transport => 'acp', model => 'stub-model',
		command => ['codex-acp'],
		env => {
			CODEX_CONFIG => $json->encode({ %codex, model_providers => { stub => { $provider->('codex-acp') } } }),
			STUB_KEY => 'none',
		});
	my %codex_provider = $provider->('codex');
	$add->(
		name => 'codex', label => 'codex exec', program => 'codex', kind => 'codex', transport => 'stream_json', model => 'stub-model',
		command => [
			'codex', 'exec', '--json', '--skip-git-repo-check', '--dangerously-bypass-approvals-and-sandbox',
			'-c', 'model_provider="stub"', '-c', 'model_reasoning_summary="auto"', '-c', 'analytics.enabled=false',
			'-c', 'model_providers.stub={' . join(', ', map { "$_=\"$codex_provider{$_}\"" } sort keys %codex_provider) . '}',
			'-m', '{model}', '-' ],
		env => { STUB_KEY => 'none' });

	# Settings of an administrator have to belong to root here, so gemini has them in its home.
	for my $name (qw(gemini gemini-stream))
	{
		$add->(
			name => $name, label => 'Gemini CLI', program => 'gemini', kind => 'gemini', model => 'gemini-2.5-pro',
			transport => $name eq 'gemini' ? 'acp' : 'stream_json',
			command => [
				with_file('.gemini/settings.json', 'GEMINI_SETTINGS'), "$bin/gemini",
				$name eq 'gemini' ? '--acp'
				: ('-p', '{prompt}', '--output-format', 'stream-json', '--approval-mode', 'yolo', '--model', '{model}') ],
			env => {
				GEMINI_API_KEY => 'none', GOOGLE_GEMINI_BASE_URL => "$url/$name", GEMINI_MODEL => 'gemini-2.5-pro',
				# Its modes that ask less are for folders it trusts.
				GEMINI_CLI_TRUST_WORKSPACE => 'true',
				GEMINI_SETTINGS => $json->encode({
					security => { auth => { selectedType => 'gemini-api-key' } },
					privacy => { usageStatisticsEnabled => $false }, telemetry => { enabled => $false },
					general => { enableAutoUpdate => $false, enableAutoUpdateNotification => $false } }),
			});
	}

	for my $name (qw(goose goose-stream))
	{
		$add->(
			name => $name, label => 'goose', program => 'goose', kind => 'goose', model => 'stub-model',
			transport => $name eq 'goose' ? 'acp' : 'stream_json',
			command => $name eq 'goose' ? [ 'goose', 'acp' ]
			: [ 'goose', 'run', '--output-format', 'stream-json', '--no-session', '-q', '--model', '{model}', '-t', '{prompt}' ],
			env => {
				GOOSE_PROVIDER => 'openai', GOOSE_MODEL => 'stub-model', OPENAI_HOST => "$url/$name",
				OPENAI_BASE_PATH => 'v1/chat/completions', OPENAI_API_KEY => 'none', GOOSE_DISABLE_KEYRING => '1',
				GOOSE_TELEMETRY_ENABLED => 'false', $name eq 'goose' ? () : (GOOSE_MODE => 'auto'),
			});
	}
	return @rows;
}

1;
