# SPDX-License-Identifier: PostgreSQL
#
# The role "probe" of the runner by itself: whatever a provider's program and its endpoint do, the answer is a status
# with a reason, in time; keys stay secret, and nothing is left running or lying about.
#
# BOOCODER_RUNNER names another runner than the one built here.
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use FindBin;
use IO::Socket::INET;
use lib "$FindBin::RealBin/lib";
use BoocoderRunner;
use JSON::PP ();
use POSIX ();
use Test::More;
use Time::HiRes qw(time usleep);

my $runner_program = BoocoderRunner::program();
plan skip_all => 'there is no runner; set BOOCODER_RUNNER' unless defined $runner_program && -x $runner_program;
chomp(my $bwrap = `sh -c 'command -v bwrap'`);
plan skip_all => 'bubblewrap is not installed' unless $bwrap;

# Not below /tmp: the sandbox has one of its own.
my $place = abs_path(tempdir('boocoder-probe-XXXXXX', DIR => '/var/tmp', CLEANUP => 1));
my ($bin, $cwd, $home) = ("$place/bin", "$place/root/probes/x", "$place/root/homes/x");
my $fake_acp = abs_path("$FindBin::RealBin/../agents/fake-acp");
my $log = "$home/log";
mkdir $bin;

sub slurp
{
	my ($path) = @_;
	open my $file, '<:raw', $path or return '';
	local $/;
	return <$file> // '';
}

# program(NAME, SHELL SCRIPT): a program on the agents' path
sub program
{
	my ($name, $script, $mode) = @_;
	open my $file, '>', "$bin/$name" or die "$bin/$name: $!";
	print $file "#!/bin/sh\n$script\n";
	close $file;
	chmod $mode // 0755, "$bin/$name";
	return $name;
}

# Says its version, otherwise is fake-acp.
sub acp_program { return program($_[0], "case \"\$1\" in --version) ${\($_[1] // 'echo \"fake 1.2.3\"')}; exit;; esac\nexec $fake_acp \"\$@\"") }

sub order
{
	my ($name, %option) = @_;
	my $args = delete $option{args} // [];
	my %sandbox = %{ delete $option{sandbox} // {} };
	my %limits = %{ delete $option{limits} // {} };

	return {
		role => 'probe', provider => 'x', agent_kind => undef, transport => 'acp', command => [ $name, @$args ],
		program => $name, version_args => ['--version'], env => {}, cwd => $cwd,
		sandbox => {
			mode => 'bwrap', ro_paths => [ $bin, dirname($fake_acp) ], hide => [], home => $home,
			agent_path => "$bin:/usr/local/bin:/usr/bin:/bin", network => JSON::PP::true, %sandbox
		},
		limits => { deadline_ms => 10_000, handshake_ms => 5_000, max_line => 1024 * 1024, term_grace_ms => 300, %limits },
		models_url => undef, models_key => undef, models_prefix => undef, %option,
	};
}

# The result of a probe; also that the runner ended and left nothing in the scratch directory.
sub probe
{
	my ($name, %option) = @_;
	my $order = order($name, %option);
	my $began = time();
	my $runner = BoocoderRunner->start;
	$runner->order($order);
	my $result = $runner->result(20) // {};
	my $took = time() - $began;

	is($runner->gone(2), 0, "$name: the runner has ended");
	is($result->{ok}, JSON::PP::true, "$name: ok");
	cmp_ok($took * 1000, '<', $order->{limits}{deadline_ms} + 1500, "$name: in time");
	is(join(' ', map { -e $_ ? $_ : () } glob "$cwd/*"), '', "$name: the scratch directory is empty");
	return $result;
}

sub status_is
{
	my ($result, $status, $reason, $name) = @_;
	is(join(' ', map { $_ // '-' } @$result{qw(status reason)}), join(' ', $status, $reason // '-'), "$name: $status")
	  or diag(JSON::PP->new->canonical->pretty->encode($result));
}

sub command_line
{
	my ($pid) = @_;
	return slurp("/proc/$pid/cmdline");
}

sub pids
{
	opendir my $dir, '/proc' or die "/proc: $!";
	return grep { /^\d+$/ } readdir $dir;
}

sub none_left
{
	my ($marker, $name) = @_;
	my $end = time() + 2;
	my @left;

	usleep(10_000) while (@left = grep { $_ != $$ && index(command_line($_), $marker) >= 0 } pids()) && time() < $end;
	is("@left", '', "$name: no process is left after 2 s") and return;
	kill 'KILL', @left;
}

sub ids { return join ' ', map { $_->{id} } @{ $_[0] } }

# ---- the program is there, or not ----

my $result = probe('no-such-agent');
status_is($result, 'unavailable', 'program_not_found', 'an absent program');
like($result->{message}, qr/no-such-agent/, 'its name is in the message');
ok($result->{hint}, 'and there is a hint');
is($result->{install_path}, undef, 'and no path');
is_deeply([ @$result{qw(models modes commands auth_methods capabilities agent_info)} ], [ [], [], [], [], {}, {} ],
	'every list is there, and empty');

program('closed', 'echo 1.2.3', 0644);
$result = probe('closed');
status_is($result, 'unavailable', 'program_not_found', 'a file that may not be run');
like($result->{message}, qr{\Q$bin\E/closed.*not executable}, 'the message says so');

# ---- its version ----

my @no_protocol = (transport => 'command');
$result = probe(program('good', 'echo; echo "Good Agent v3.21.0-beta.1 (x86)"'), @no_protocol);
status_is($result, 'ready', undef, 'a program without a protocol');
is($result->{version}, '3.21.0-beta.1', 'its version');
is($result->{install_path}, "$bin/good", 'its path');
is($result->{supports_acp}, JSON::PP::false, 'no ACP');
cmp_ok($result->{duration_ms}, '<', 5000, 'duration');

is(probe(program('on-stderr', 'echo "tool 7.8" >&2'), @no_protocol)->{version}, '7.8', 'a version on standard error');

$result = probe(program('garbage', 'head -c 300000 /dev/urandom | tr -d .; echo'), @no_protocol);
status_is($result, 'ready', 'version_failed', 'garbage on stdout and a good end');
is($result->{version}, undef, 'no version');

$result = probe(program('refusing', 'echo "Illegal option --" >&2; exit 2'), @no_protocol);
status_is($result, 'ready', 'version_failed', 'any program may know no --version');
like($result->{message}, qr/status 2: Illegal option/, 'what it said is kept');
$result = probe('refusing', transport => 'claude');
status_is($result, 'error', 'version_failed', 'an agent has to know it');
status_is(probe(program('broken', 'exit 127'), @no_protocol), 'error', 'version_failed', 'a program whose interpreter fails');

$result = probe(program('crashing', 'echo "Node.js v20.1.0" >&2; echo "cannot find module" >&2; kill -SEGV $$'), @no_protocol);
status_is($result, 'error', 'version_failed', 'a program that crashes');
like($result->{message}, qr/signal 11: cannot find module/, 'signal and last words are in the message');
is($result->{version}, undef, 'the version of something else is none');

for my $mode (qw(bwrap off))
{
	my $marker = "boocoder-probe-$$-$mode";
	program('hanging', "trap '' TERM; setsid sh -c 'trap \"\" TERM; exec sleep 300.$$' $marker & while :; do sleep 0.2; done # $marker");
	$result = probe('hanging', @no_protocol, version_args => [$marker], sandbox => { mode => $mode }, limits => { deadline_ms => 1500 });
	status_is($result, 'error', 'probe_timeout', "$mode, a hanging --version");
	none_left($marker, "$mode, a hanging --version");
	none_left("300.$$", "$mode, its child in a session of its own");
}

status_is(probe(program('mute', 'exit 1'), @no_protocol, version_args => []), 'ready', undef, 'a program that is not asked for its version');

# ---- the protocol ----

acp_program('fake');
for my $mode (qw(bwrap off))
{
	$result = probe('fake', args => [ '--commands=plan,review', "--log=$log-$mode", '--close', '--auth=login' ], sandbox => { mode => $mode });
	status_is($result, 'ready', undef, "$mode: an agent");
	is($result->{version}, '1.2.3', "$mode: version");
	is($result->{supports_acp}, JSON::PP::true, "$mode: ACP");
	is_deeply($result->{agent_info}, { name => 'fake-acp', version => '1' }, "$mode: agentInfo");
	is_deeply($result->{capabilities}{sessionCapabilities}, { close => {} }, "$mode: capabilities");
	is_deeply($result->{auth_methods}, [ { id => 'login', name => 'Login' } ], "$mode: authMethods");
	is_deeply($result->{models}, [ { id => 'fake-1', name => 'Fake-1' }, { id => 'fake-2', name => 'Fake-2' } ], "$mode: models");
	is_deeply($result->{modes}, [ map { { id => $_, name => ucfirst, description => undef } } qw(ask auto) ], "$mode: modes");
	is(join(' ', @$result{qw(current_model current_mode)}), 'fake-1 ask', "$mode: current model and mode");
	is_deeply($result->{commands}, [ map { { name => $_, description => "does $_", hint => undef } } qw(plan review) ], "$mode: commands");
	my @asked = map { JSON::PP->new->decode($_)->{method} } split /\n/, slurp("$log-$mode");
	is("@asked", 'initialize session/new session/close', "$mode: the session was closed");
}

$result = probe('fake', args => ['--config']);
status_is($result, 'ready', undef, 'an agent with options only');
is(ids($result->{models}), 'fake-1 fake-2', 'models of the option');
is(ids($result->{modes}), 'ask auto', 'modes of the option');
is(join(' ', @$result{qw(current_model current_mode)}), 'fake-1 ask', 'and which is current');
is_deeply($result->{commands}, [], 'no commands');

$result = probe('fake', args => [ '--banner=Welcome!', '--bytes', '--crlf', '--name=-' ]);
status_is($result, 'ready', undef, 'an agent with bad manners');
is_deeply($result->{agent_info}, {}, 'and without agentInfo');

$result = probe('fake', args => [ '--new=auth', '--auth=oauth,api-key' ]);
status_is($result, 'error', 'auth_required', 'an agent that wants to be signed in');
is($result->{supports_acp}, JSON::PP::true, 'which speaks the protocol');
like($result->{hint}, qr/Oauth \(oauth\), Api-key \(api-key\)/, 'the hint names the ways');

my %broken = (
	'--init=auth' => 'auth_required', '--init=error' => 'agent_error', '--init=v2' => 'protocol_mismatch',
	'--init=exit' => 'agent_exited', '--new=error' => 'agent_error', '--new=exit' => 'agent_exited', '--new=no-id' => 'protocol_error',
);
for my $how (sort keys %broken)
{
	$result = probe('fake', args => [$how]);
	status_is($result, 'error', $broken{$how}, $how);
	is($result->{supports_acp}, $how =~ /new/ ? JSON::PP::true : JSON::PP::false, "$how: ACP");
	is($result->{version}, '1.2.3', "$how: the version is known");
}
for my $how ('--init=silence', '--init=junk', '--new=silence')
{
	my $marker = "--log=$home/boocoder-probe-$$";
	status_is(probe('fake', args => [ $how, '--ignore-term', '--ignore-eof', $marker ], limits => { handshake_ms => 700 }),
		'error', 'probe_timeout', $how);
	none_left($marker, $how);
}
status_is(probe('fake', args => ["--banner=" . 'x' x 5000], limits => { max_line => 1000 }), 'error', 'line_too_long', 'a long line');

acp_program('unversioned', 'echo none');
$result = probe('unversioned');
status_is($result, 'ready', 'version_failed', 'an agent without a version');
acp_program('slow-version', 'sleep 60');
$result = probe('slow-version', limits => { deadline_ms => 3000 });
status_is($result, 'ready', 'version_failed', 'an agent whose --version hangs');
is(ids($result->{models}), 'fake-1 fake-2', 'is an agent nevertheless');

status_is(probe('fake', args => ['--init=silence'], limits => { deadline_ms => 1000 }), 'error', 'probe_timeout', 'the deadline of all');

# An agent that leaves things and processes behind
{
	my $marker = "boocoder-probe-litter-$$";
	program('littering', <<"SH");
case "\$1" in --version) echo 1.0; exit;; esac
mkdir -p deep/er; echo x > deep/er/file; ln -s / root; ln -s $bin bin; chmod 0 deep
setsid perl -e '\$SIG{TERM} = "IGNORE"; sleep 60' $marker > /dev/null 2>&1 &
exec $fake_acp "\$@"
SH
	for my $mode (qw(bwrap off))
	{
		status_is(probe('littering', sandbox => { mode => $mode }), 'ready', undef, "$mode, an agent that leaves things behind");
		none_left($marker, "$mode, an agent that leaves things behind");
		ok(-x "$bin/fake", "$mode: what its links lead to is there");
	}
}

# ---- the dispatcher ----

for my $end (qw(cancel hang_up))
{
	my $marker = "--log=$home/boocoder-probe-$end-$$";
	my $runner = BoocoderRunner->start;
	$runner->order(order('fake', args => [ '--init=silence', $marker ]));
	my $there = time() + 5;
	usleep(10_000) until (grep { index(command_line($_), "fake-acp\0") >= 0 && index(command_line($_), $marker) >= 0 } pids()) || time() > $there;
	my $began = time();
	$runner->$end;
	status_is($runner->result(5) // {}, 'error', 'cancelled', $end) if $end eq 'cancel';
	is($runner->gone(5), 0, "$end: the runner ends");
	cmp_ok(time() - $began, '<', 1.5, "$end: at once");
	none_left($marker, $end);
	is(join(' ', glob "$cwd/*"), '', "$end: the scratch directory is empty");
}

# ---- models of programs without the protocol ----

program('tool', <<'SH');
case "$1" in
--version) echo 9.9.9;;
models) echo "Updating..."; echo opencode/big-pickle; echo lab/org/model-1; echo lab/org/model-1;;
--list-models)
	echo "provider  model         context  max-out  thinking  images"
	echo "lab       lab-model     200K     16K      yes       no"
	echo "openai    gpt-6         400K     16K      yes       yes";;
esac
SH
$result = probe('tool', transport => 'opencode', agent_kind => 'opencode');
is(ids($result->{models}), 'opencode/big-pickle lab/org/model-1', 'models of opencode');
is_deeply(probe('tool', transport => 'command', agent_kind => 'opencode')->{models}, [], 'which are asked for only where they can be used');
$result = probe('tool', transport => 'stream_json', agent_kind => 'pi');
is_deeply($result->{models}, [ { id => 'lab/lab-model', name => 'lab-model' }, { id => 'openai/gpt-6', name => 'gpt-6' } ], 'models of pi');
$result = probe('tool', transport => 'stream_json', agent_kind => 'claude');
is(ids($result->{models}), 'default sonnet opus haiku', 'models of claude');
program('modelless', 'test "$1" = --version && echo 1.0 || { echo "no such command" >&2; exit 2; }');
$result = probe('modelless', transport => 'opencode', agent_kind => 'opencode');
status_is($result, 'ready', undef, 'a program that does not list its models');
like($result->{message}, qr/models are unknown.*status 2: no such command/, 'says why');

mkdir "$home/.qwen";
my $settings = "$home/.qwen/settings.json";
sub settings { open my $file, '>', $settings or die; print $file @_; close $file }
settings('{ // mine', "\n", '"model": {"name": "coder"}, /* all */ "env": {"KEY": "sk-canary"},
	"modelProviders": {"openai": [{"id": "coder", "name": "The Coder", "baseUrl": "http://x//y"}, {"id": "small"}, 5], "z": null}}');
$result = probe('tool', transport => 'pty', agent_kind => 'qwen');
is_deeply($result->{models}, [ { id => 'coder', name => 'The Coder' }, { id => 'small', name => 'small' } ], 'models of qwen');
is($result->{current_model}, 'coder', 'and the one in use');
unlike(JSON::PP->new->encode($result), qr/canary/, 'and nothing else of its settings');
settings('{ "model": ');
status_is(probe('tool', transport => 'pty', agent_kind => 'qwen'), 'ready', undef, 'broken settings');
unlink $settings;
symlink '/etc/passwd', $settings;
status_is(probe('tool', transport => 'pty', agent_kind => 'qwen'), 'ready', undef, 'settings that are a link elsewhere');

# ---- models of an endpoint ----

my $key = "sk-canary-$$-" . int rand 1e9;
my $listener = IO::Socket::INET->new(Listen => 20, LocalAddr => '127.0.0.1', ReuseAddr => 1) or die "listen: $!";
my $base = 'http://127.0.0.1:' . $listener->sockport;
my $requests = "$place/requests";

# What it does is in the first part of the path.
sub serve
{
	my ($client) = @_;
	my $request = '';
	while ($request !~ /\r\n\r\n/) { sysread $client, $request, 65536, length $request or return }
	open my $file, '>>', $requests or return;
	syswrite $file, $request;
	my ($how) = $request =~ m{^GET /(\w+)/} or return;
	my $body = '{"object": "list", "data": [{"id": "big"}, {"id": "small", "name": "Small one"}, {"id": "big"}, {"id": "one"}]}';
	my $head = 'HTTP/1.1 200 OK';
	$head = "HTTP/1.1 500 Internal Server Error" if $how eq 'broken';
	$head = "HTTP/1.1 302 Found\r\nLocation: $base/ok/v1/models" if $how eq 'moved';
	$body = "Incorrect key: $key" if $how eq 'broken';
	$body = "<html>$key</html>" if $how eq 'garbage';
	if ($how eq 'hang') { sleep 30; return }
	if ($how eq 'slow') { usleep(1_500_000) }
	if ($how eq 'huge') { print $client "$head\r\nConnection: close\r\n\r\n[\""; while (print $client 'x' x 65536) { } return }
	if ($how eq 'headers') { print $client "$head\r\n"; while (print $client 'X-Y: ' . 'x' x 60000 . "\r\n") { } return }
	print $client "$head\r\nContent-Length: " . length($body) . "\r\nConnection: close\r\n\r\n$body";
}

my $server = fork() // die "fork: $!";
if ($server == 0)
{
	$SIG{PIPE} = 'IGNORE';
	$SIG{CHLD} = 'IGNORE';
	while (1)
	{
		my $client = $listener->accept or next;
		if (!fork) { serve($client); POSIX::_exit(0) }
		close $client;
	}
}
close $listener;

# It tells its commands at once, so that nobody waits for them.
my @agent = ('fake', args => ['--commands=plan'], version_args => []);
my @endpoint = (models_prefix => 'llama-swap/', models_key => $key);
$result = probe(@agent, @endpoint, models_url => "$base/ok/v1");
status_is($result, 'ready', undef, 'an agent and an endpoint');
is(ids($result->{models}), 'fake-1 fake-2 llama-swap/big llama-swap/small llama-swap/one', 'its models are behind those of the agent');
is($result->{models}[3]{name}, 'Small one', 'with their names');
is($result->{current_model}, 'fake-1', 'the current one is the agent\'s');
like(slurp($requests), qr{^GET /ok/v1/models HTTP/1\.1\r\n.*^Authorization: Bearer \Q$key\E\r$}ms, 'what the endpoint was asked');
unlike(JSON::PP->new->encode($result), qr/canary/, 'the key is not in the result');

$result = probe(@agent, models_url => "$base/ok/v1/", models_prefix => undef);
is(ids($result->{models}), 'fake-1 fake-2 big small one', 'a slash at the end, no prefix, no key');
unlink $requests;
probe(@agent, models_url => "$base/ok/v1");
unlike(slurp($requests), qr/Authorization/, 'without a key none is sent');

unlink $requests;
{
	local @ENV{qw(http_proxy HTTP_PROXY all_proxy ALL_PROXY)} = ('http://127.0.0.1:1') x 4;
	is(ids(probe(@agent, @endpoint, models_url => "$base/ok/v1")->{models}), 'fake-1 fake-2 llama-swap/big llama-swap/small llama-swap/one',
		'a proxy of the environment is not used');
}

my %bad = (
	"$base/broken/v1" => qr/HTTP status 500/,
	"$base/moved/v1" => qr/HTTP status 302, and redirects are not followed/,
	"$base/garbage/v1" => qr/no list of models/,
	"$base/huge/v1" => qr/larger than 4 MB/,
	"$base/headers/v1" => qr/unknown: ./,
	'http://127.0.0.1:1/v1' => qr/connect/i,
	"file://$bin/x" => qr/neither http nor https/,
	'ftp://127.0.0.1/v1' => qr/neither http nor https/,
	'not a url' => qr/no URL/,
	"http://user:$key\@127.0.0.1:1/v1" => qr/credentials/,
);
for my $url (sort keys %bad)
{
	$result = probe(@agent, @endpoint, models_url => $url);
	(my $name = $url) =~ s/\Q$base\E|\Q$key\E//;
	status_is($result, 'ready', undef, "endpoint $name");
	is(ids($result->{models}), 'fake-1 fake-2', "endpoint $name: the agent's models are there");
	like($result->{message}, $bad{$url}, "endpoint $name: the message says why");
	unlike(JSON::PP->new->encode($result), qr/canary/, "endpoint $name: no key in the result");
}
$result = probe(@agent, models_url => "$base/ok/v1", models_key => "bad\r\nX-Evil: 1");
like($result->{message}, qr/can't be sent/, 'a key that would be another header');
unlike(slurp($requests), qr/Evil/, 'is not sent');
unlink $requests;
like(probe(@agent, models_url => "$base/ok/v1", models_key => { from_env => 'NO_SUCH_VARIABLE' })->{message},
	qr/models of the endpoint are unknown/, 'a key that is not there');
ok(!-e $requests, 'nothing is asked without it');
$result = probe(@agent, @endpoint, models_url => "$base/hang/v1", limits => { deadline_ms => 3000 });
status_is($result, 'ready', undef, 'an endpoint that hangs');
like($result->{message}, qr/not answer in time/, 'the message says so');

# The key is on nobody's command line while it is used.
{
	my $runner = BoocoderRunner->start;
	my ($seen, $looks) = (0, 0);
	$runner->order(order(@agent, @endpoint, models_url => "$base/slow/v1"));
	$runner->follow(sub {
		$looks++;
		$seen += grep { index(command_line($_) . slurp("/proc/$_/comm"), $key) >= 0 } pids();
		$seen += grep { index(slurp("/proc/$_/environ"), $key) >= 0 } $runner->{pid};
		return $runner->{result};
	}, 10);
	is(ids($runner->{result}{models}), 'fake-1 fake-2 llama-swap/big llama-swap/small llama-swap/one', 'a slow endpoint');
	cmp_ok($looks, '>', 10, 'while it was waited for, command lines were looked at');
	is($seen, 0, 'the key was on none, nor in the environment of the runner');
}
kill 'TERM', $server;
waitpid $server, 0;

none_left($place, 'at the end');
done_testing();
