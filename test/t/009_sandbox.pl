# SPDX-License-Identifier: PostgreSQL
#
# What an agent has and hasn't got: descriptors, environment, files, the server. It reports in the words of a shell
# script; what it could not do it could not have hidden.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use Test::More;

my $node = new_node('sandbox', conf => "boocoder.spare_runners = 1");
my $repo = make_repo('sandbox');
add_project($node, 'demo', $repo);
add_shell_agent($node);
ok(wait_dispatcher($node), 'the dispatcher is there');

my $data = $node->data_dir;
my $sockets = $node->host;
my $port = $node->port;
my $outside = "$scratch/outside";
mkdir $outside;
spew("$outside/private", "not for agents\n");

# The server was started with things that an agent must not see.
$ENV{BOOCODER_CANARY} = 'canary-of-the-server';
$node->restart;
delete $ENV{BOOCODER_CANARY};
ok(wait_dispatcher($node), 'the dispatcher is there after a restart');

sub report
{
	my ($script, %option) = @_;
	my $task = run_task($node, $script, 'demo', agent => 'shell', %option);
	settles($node, $task, 'completed', 'a task that looks around');
	return text_of($node, $task);
}

# try NAME COMMAND...: prints "NAME yes" or "NAME no"
my $try = 'try() { name=$1; shift; if ("$@") >/dev/null 2>&1; then echo "$name yes"; else echo "$name no"; fi; }';

for my $sandbox (qw(on off))
{
	if ($sandbox eq 'off')
	{
		$node->append_conf('postgresql.conf', "boocoder.sandbox = 'off'");
		$node->reload;
		ok(until_true(sub { sql($node, 'SHOW boocoder.sandbox') eq 'off' }), 'sandbox off');
		# An order may still have been made with the old setting.
		until_true(sub { text_of($node, do {
			my $t = run_task($node, "test -e '$data/PG_VERSION' && echo visible", 'demo', agent => 'shell');
			wait_settled($node, $t); $t }) =~ /visible/ });
	}

	# ---- descriptors: those of ls itself are 0, 1, 2 and the directory it reads ----

	my $text = report('for fd in /proc/self/fd/*; do n=${fd##*/}; case $n in 0|1|2) ;; *) echo "$n $(readlink $fd)";; esac; done');
	# The shell holds the directory open while it expands the pattern.
	my @extra = grep { !m{^\d+\s*$} && !m{/proc/\d+/fd$} } split /\n/, $text;
	is_deeply(\@extra, [], "sandbox $sandbox: no descriptor above 2");

	# ---- environment: an allow-list ----

	my %seen = map { /^([^=]+)=(.*)$/ ? ($1 => $2) : () } split /\n/, report('env');
	my %allowed = map { $_ => 1 } qw(PATH HOME USER LOGNAME SHELL LANG TZ TERM TMPDIR BOOCODER_TASK_ID BOOCODER_WORKTREE
		BOOCODER_PROJECT BOOCODER_SESSION_ID BOOCODER_BRANCH BOOCODER_BASE_COMMIT BOOCODER_PORT BOOCODER_PORT_COUNT PWD OLDPWD SHLVL _);
	is_deeply([ grep { !$allowed{$_} } sort keys %seen ], [], "sandbox $sandbox: nothing but the allowed environment");
	isnt($seen{HOME}, (getpwuid $>)[7], "sandbox $sandbox: HOME is a private one");
	like($seen{BOOCODER_TASK_ID}, qr/^\d+$/, "sandbox $sandbox: the agent knows its task");
	like($seen{BOOCODER_WORKTREE}, qr/^\Q@{[worktree_root($node)]}\E\//, "sandbox $sandbox: and its worktree");

	# ---- what it can do ----

	$text = report("$try\n" . <<'SH');
try write-worktree sh -c 'echo x > written.txt'
try write-home sh -c 'echo x > "$HOME/written"'
try write-tmp sh -c 'echo x > /tmp/written'
try git-status git status
try git-log git log
try git-diff git diff
try perl perl -e 1
SH
	like($text, qr/^$_ yes$/m, "sandbox $sandbox: the agent can $_")
	  for qw(write-worktree write-home write-tmp git-status git-log git-diff perl);
	next if $sandbox eq 'off';

	# ---- what it can't ----

	my $self = $$;
	my $postmaster = (split /\n/, slurp("$data/postmaster.pid"))[0];
	$text = report("$try\n" . <<"SH");
try pg-version cat '$data/PG_VERSION'
try data-directory ls '$data'
try write-data sh -c "echo x > '$data/evil'"
try socket test -e '$sockets/.s.PGSQL.$port'
try connect perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Peer => q{$sockets/.s.PGSQL.$port}) or exit 1'
try other-file cat '$outside/private'
try write-outside sh -c "echo x > '$outside/evil'"
try write-project sh -c "echo x > '$repo/evil'"
try write-git sh -c "echo x > '$repo/.git/evil'"
try write-config git config user.name evil
try commit git -c user.name=a -c user.email=b commit --allow-empty -m evil
try write-root sh -c 'echo x > /evil'
try write-usr sh -c 'echo x > /usr/evil'
try write-etc sh -c 'echo x >> /etc/passwd'
try home-of-server ls -A '@{[ (getpwuid $>)[7] ]}/.'
try other-worktrees sh -c 'test "\$(ls -d "\$(dirname "\$BOOCODER_WORKTREE")"/s* "\$(dirname "\$HOME")"/s* | wc -l)" -gt 2'
try see-postmaster test -e /proc/$postmaster/exe
try signal-postmaster kill -0 $postmaster
try signal-test kill -0 $self
try environ-of-init grep -q PGDATA /proc/1/environ
try mount mount -t tmpfs none /tmp
try namespace-write unshare -Urm sh -c "mount -o remount,bind,rw '$repo/.git' && echo x > '$repo/.git/evil'"
try namespace-usr unshare -Urm mount -o remount,bind,rw /usr
try namespace-root unshare -Urm mount -o remount,bind,rw /
try namespace-uncover unshare -Urm sh -c "umount -l '$repo/.git' || umount -l '$repo' || umount -l /tmp || umount -l /usr"
try ptrace-init cat /proc/1/mem
try shadow cat /etc/shadow
try device cat /dev/vda
SH
	# In a namespace of its own an agent is root, of nothing: but for the mounts it made itself all stays as it is.
	like(report("$try\ntry own-namespace unshare -Urm sh -c 'mount -t tmpfs none /tmp && echo x > /tmp/x'"), qr/^own-namespace yes$/,
		'sandbox on: namespaces can be made, so it is not that');
	# "yes" to any of these is a hole.
	for my $line (grep { /\S/ } split /\n/, $text)
	{
		my ($name, $answer) = $line =~ /^(\S+) (yes|no)$/ or next;
		next if $name eq 'home-of-server' && $seen{HOME} eq (getpwuid $>)[7];
		is($answer, 'no', "sandbox on: the agent can't: $name");
	}
	cmp_ok(scalar(() = $text =~ / (?:yes|no)$/mg), '>=', 28, 'every attempt was made');
	unlike(report('cat /proc/*/environ 2>/dev/null | tr "\0" "\n"; env'), qr/canary-of-the-server|^PGDATA=|^PG/m,
		'sandbox on: nothing of the environment of the server in reach');
	ok(!-e "$repo/evil" && !-e "$repo/.git/evil" && !-e "$outside/evil" && !-e "$data/evil", 'nothing was written');
	is(git($repo, 'log', '--format=%s'), 'First', 'nor committed in the project');
}

# ---- a project that would open the server's own files to agents is refused ----

like(sql_error($node, "SELECT boocoder.add_project('data', '$data')"), qr/ERROR/, 'the data directory is no project');

# ---- an abstract socket has no place that could be hidden ----

$node->append_conf('postgresql.conf', "boocoder.sandbox = 'on'\nunix_socket_directories = '$sockets,\@boocoder-test-$$'");
$node->restart;
ok(wait_dispatcher($node), 'the dispatcher is there after another restart');
my $knock = qq{perl -MIO::Socket::UNIX -e 'print IO::Socket::UNIX->new(Peer => chr(0) . q{boocoder-test-$$/.s.PGSQL.$port}) ? "open" : "shut"'};
my $warned = sub { return join '', map { "$_->{status}: $_->{detail}" } grep { $_->{check} eq 'sockets' } sql_rows($node, 'SELECT * FROM boocoder.doctor()') };
is(report($knock), 'open', 'an agent reaches an abstract socket');
like($warned->(), qr/^warning: .*\@boocoder-test-$$"/, 'and doctor() says so');
$node->append_conf('postgresql.conf', "boocoder.sandbox_network = off");
$node->reload;
ok(until_true(sub { report($knock) eq 'shut' }), 'not without the network');
is($warned->(), '', 'nor does doctor() then warn');
$node->append_conf('postgresql.conf', "boocoder.sandbox_network = on\nunix_socket_directories = '$sockets'");
$node->restart;
ok(wait_dispatcher($node), 'the dispatcher is there once more');
is($warned->(), '', 'nor without such a socket');

# ---- the worktree root ----

$node->append_conf('postgresql.conf', "boocoder.sandbox = 'on'\nboocoder.worktree_root = '$data/worktrees'");
$node->reload;
ok(until_true(sub { sql($node, 'SHOW boocoder.worktree_root') eq "$data/worktrees" }), 'a worktree root inside the data directory');
my $task = run_task($node, 'true', 'demo', agent => 'shell');
settles($node, $task, 'failed', 'fails tasks');
is(task_row($node, $task)->{failure_reason}, 'worktree_root_unsafe', 'with a reason');
ok(grep({ $_->{status} eq 'error' } sql_rows($node, 'SELECT * FROM boocoder.doctor()')), 'and doctor sees it');
ok(!-e "$data/worktrees", 'nothing was made there');
$node->append_conf('postgresql.conf', "boocoder.worktree_root = '$repo/worktrees'");
$node->reload;
until_true(sub { sql($node, 'SHOW boocoder.worktree_root') eq "$repo/worktrees" });
$task = run_task($node, 'true', 'demo', agent => 'shell');
settles($node, $task, 'failed', 'a worktree root inside the project fails tasks too');
ok(!-e "$repo/worktrees", 'and makes nothing in the project');
is((stat worktree_root($node))[2] & 07777, 0700, 'the worktree root is closed to others');

ok(none_left($node), 'no agent process is left');
$node->stop('fast');
done_testing();
