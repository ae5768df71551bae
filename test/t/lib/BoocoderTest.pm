# SPDX-License-Identifier: PostgreSQL
#
# What the TAP tests share: a server with boocoder, git repositories, agents that are one shell script each, waiting
# with deadlines, and a look at the processes of the machine.
#
# Tests use boocoder through SQL only. Nothing here sleeps for a fixed time: until() looks again every 20 ms and
# gives up at its deadline.
package BoocoderTest;

use strict;
use warnings;

use Cwd qw(abs_path getcwd);

# What "make check-tap" of the server sources would set; PGXS does it only for tests in t/.
BEGIN
{
	unless ($ENV{PG_REGRESS})
	{
		chomp(my $pgxs = `pg_config --pgxs`);
		($ENV{PG_REGRESS} = $pgxs) =~ s{src/makefiles/pgxs\.mk$}{src/test/regress/pg_regress};
	}
	# Absolute, since agents run elsewhere: TESTDIR up to 15, the others from 16 on.
	$ENV{TESTDIR} //= getcwd();
	$ENV{TESTDATADIR} //= "$ENV{TESTDIR}/tmp_check";
	$ENV{TESTLOGDIR} //= "$ENV{TESTDIR}/tmp_check/log";
	# A value set for another server would get in the way of every psql here.
	delete @ENV{qw(PGHOST PGPORT PGDATABASE PGUSER PGSERVICE PGPASSFILE)};
}

use Exporter qw(import);
use File::Basename qw(dirname);
use File::Path qw(make_path remove_tree);
use IPC::Run ();
use JSON::PP ();
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(
  $agents_dir $scratch
  until_true now deadline_seconds literal json
  new_node reconfigure worktree_root make_repo repo_files git slurp spew
  add_project add_shell_agent add_fake_acp run_task new_chat explain_task
  sql sql_error sql_row sql_rows task_row task_state wait_task wait_settled settles events_of text_of said_so_far
  session_open session_close
  dispatcher_pid wait_dispatcher
  processes alive same_process runner_pids agent_pids none_left report_processes
);

our $agents_dir = abs_path(dirname(__FILE__) . '/../../agents');

# A directory that goes with the test; repositories and worktrees live in it.
our $scratch;
INIT
{
	# A failed run keeps its servers' directories for inspection, until the next one.
	my ($test) = $0 =~ m{([^/]+)\.pl$};
	remove_tree(glob "$PostgreSQL::Test::Utils::tmp_check/t_${test}_*_data");
	unlink glob "$PostgreSQL::Test::Utils::log_path/${test}_*.log";
	$scratch = abs_path(PostgreSQL::Test::Utils::tempdir('boocoder'));
}

my $json = JSON::PP->new->canonical->allow_nonref;
my $default_timeout = $ENV{PG_TEST_TIMEOUT_DEFAULT} || 180;

sub deadline_seconds { return $default_timeout }
sub now { return time() }
sub json { return $json }

# until_true(CODE, SECONDS): looks until CODE returns true; its value, or undef after the deadline.
sub until_true
{
	my ($code, $seconds) = @_;
	my $end = time() + ($seconds // $default_timeout);

	while (1)
	{
		my $value = $code->();
		return $value if $value;
		return if time() > $end;
		usleep(20_000);
	}
}

sub slurp
{
	my ($path) = @_;
	open my $file, '<:raw', $path or die "$path: $!";
	local $/;
	my $content = <$file>;
	close $file;
	return $content;
}

sub spew
{
	my ($path, $content, $mode) = @_;
	make_path(dirname($path));
	open my $file, '>:raw', $path or die "$path: $!";
	print $file $content;
	close $file or die "$path: $!";
	chmod $mode, $path if defined $mode;
}

# ---- server ----

# new_node(NAME, OPTION => VALUE ...): a running server, boocoder preloaded and created in database "postgres".
#   conf      lines for postgresql.conf
#   init      options for init() of the cluster, such as {allows_streaming => 1}
#   preload   0: without shared_preload_libraries
#   extension 0: CREATE EXTENSION is left to the test
#   start     0: not started
sub new_node
{
	my ($name, %option) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	my $root = worktree_root($node);

	# Not what the environment happens to say: boocoder wants UTF8.
	$node->init(extra => [ '--encoding=UTF8', '--locale=C' ], %{ $option{init} // {} });
	$node->append_conf('postgresql.conf', <<"CONF");
max_connections = 40
restart_after_crash = on
log_statement = none
boocoder.worktree_root = '$root'
boocoder.probe_ttl = 0
boocoder.worktree_grace = 0
boocoder.sandbox_ro_paths = '$agents_dir'
CONF
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'boocoder'")
	  if $option{preload} // 1;
	$node->append_conf('postgresql.conf', $option{conf}) if $option{conf};
	return $node unless $option{start} // 1;
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION boocoder') if $option{extension} // 1;
	return $node;
}

# reconfigure(NODE, "SET name = value" or "RESET name"): ALTER SYSTEM, and a reload, which takes a moment.
sub reconfigure
{
	my ($node, $setting) = @_;
	sql($node, "ALTER SYSTEM $setting");
	sql($node, 'SELECT pg_reload_conf()');
}

sub worktree_root
{
	my ($node) = @_;
	return "$scratch/worktrees-" . $node->name;
}

# ---- SQL ----

sub literal
{
	my ($value) = @_;
	return 'NULL' unless defined $value;
	return $value ? 'true' : 'false' if JSON::PP::is_bool($value);
	$value =~ s/'/''/g;
	return "'$value'";
}

# sql(NODE, QUERY, DATABASE): the output; dies on an error.
sub sql
{
	my ($node, $query, $database) = @_;
	return $node->safe_psql($database // 'postgres', $query);
}

# sql_error(NODE, QUERY, OPTIONS): the SQLSTATE and message of an expected error, '' when there was none.
sub sql_error
{
	my ($node, $query, %option) = @_;
	my ($stdout, $stderr);
	my $code = $node->psql($option{database} // 'postgres',
		"\\set VERBOSITY verbose\n$query",
		stdout => \$stdout, stderr => \$stderr, on_error_stop => 1, extra_params => $option{params} // []);
	return $code == 0 ? '' : $stderr;
}

# One row as a hash; undef when there is none.
sub sql_row
{
	my ($node, $query, $database) = @_;
	my $line = sql($node, "SELECT to_jsonb(q) FROM ($query) q LIMIT 1", $database);
	return $line eq '' ? undef : $json->decode($line);
}

sub sql_rows
{
	my ($node, $query, $database) = @_;
	my $line = sql($node, "SELECT coalesce(jsonb_agg(to_jsonb(q)), '[]') FROM ($query) q", $database);
	return @{ $json->decode($line) };
}

# A psql that stays connected: $psql->query_safe(...), $psql->query_until(...), session_close($psql).
sub session_open
{
	my ($node, $database) = @_;
	my $psql = $node->background_psql($database // 'postgres', on_error_stop => 0);

	# its time-out is for a query, not for as long as it is open
	$psql->set_query_timer_restart if $psql->can('set_query_timer_restart');
	return $psql;
}

sub session_close
{
	my ($psql) = @_;
	eval { $psql->quit; 1 } or diag("psql did not end well: $@");
}

# ---- repositories ----

sub git
{
	my ($path, @args) = @_;
	my ($out, $err);
	local $ENV{GIT_CONFIG_NOSYSTEM} = 1;
	local $ENV{GIT_CONFIG_GLOBAL} = '/dev/null';
	IPC::Run::run([ 'git', '-C', $path, '-c', 'user.name=Test', '-c', 'user.email=test@example.org',
			'-c', 'core.autocrlf=false', @args ], '<', \'', '>', \$out, '2>', \$err)
	  or die "git @args in $path: $err";
	chomp $out;
	return $out;
}

# make_repo(NAME, {PATH => CONTENT}): a repository with one commit; its path.
sub make_repo
{
	my ($name, $files) = @_;
	my $path = "$scratch/$name";

	make_path($path);
	git($path, 'init', '-q', '-b', 'main');
	$files //= { 'README' => "A demo.\n", 'hello.txt' => "hello\n" };
	spew("$path/$_", $files->{$_}) for sort keys %$files;
	git($path, 'add', '-A');
	git($path, 'commit', '-q', '-m', 'First');
	return $path;
}

# Everything in a checkout but .git: path => content ("-> target" for a symbolic link).
sub repo_files
{
	my ($path) = @_;
	my %found;
	my @todo = ('');

	while (defined(my $dir = shift @todo))
	{
		opendir my $handle, "$path/$dir" or die "$path/$dir: $!";
		for my $entry (grep { !/^\.\.?$/ } readdir $handle)
		{
			my $rel = $dir eq '' ? $entry : "$dir/$entry";
			next if $rel eq '.git';
			if (-l "$path/$rel") { $found{$rel} = '-> ' . readlink "$path/$rel" }
			elsif (-d _) { push @todo, $rel }
			else { $found{$rel} = slurp("$path/$rel") }
		}
		closedir $handle;
	}
	return \%found;
}

# ---- projects, agents, tasks ----

sub add_project
{
	my ($node, $name, $path, $database) = @_;
	return sql($node, 'SELECT boocoder.add_project(' . literal($name) . ', ' . literal($path) . ')', $database);
}

# An agent "shell" whose prompt is the shell script it runs. "command" agents get the prompt as their last argument,
# which for sh -c is $0.
sub add_shell_agent
{
	my ($node, $name, $database) = @_;
	$name //= 'shell';
	sql($node, "SELECT boocoder.register_provider('$name', 'command', ARRAY['/bin/sh', '-c', 'eval \"\$0\"'])",
		$database);
	return $name;
}

# The scripted ACP agent of test/agents under a name, with arguments of its own.
sub add_fake_acp
{
	my ($node, $name, @args) = @_;
	$name //= 'fake';
	my $command = join ', ', map { literal($_) } "$agents_dir/fake-acp", @args;
	sql($node, "SELECT boocoder.register_provider('$name', 'acp', ARRAY[$command])");
	return $name;
}

# run_task(NODE, INPUT, PROJECT, NAME => VALUE ...): enqueues by boocoder.run; the task's id.
# A value that is a reference is taken as an SQL expression.
sub run_task
{
	my ($node, $input, $project, %option) = @_;
	my $database = delete $option{database};
	my $args = join '', map {
		", $_ => " . (ref $option{$_} eq 'SCALAR' ? ${ $option{$_} } : literal($option{$_}))
	} sort keys %option;
	return sql($node, 'SELECT boocoder.run(' . literal($input) . ', ' . literal($project) . "$args)", $database);
}

# A chat, in a session of its own (of the first project) unless one is given.
sub new_chat
{
	my ($node, $session) = @_;
	$session //= sql($node, 'INSERT INTO boocoder.sessions (project_id) VALUES (1) RETURNING id');
	return sql($node, "INSERT INTO boocoder.chats (session_id) VALUES ($session) RETURNING id");
}

sub task_row
{
	my ($node, $task, $database) = @_;
	return sql_row($node, "SELECT * FROM boocoder.tasks WHERE id = $task", $database);
}

sub task_state
{
	my ($node, $task, $database) = @_;
	return sql($node, "SELECT state FROM boocoder.tasks WHERE id = $task", $database);
}

# wait_task(NODE, TASK, STATE, SECONDS, DATABASE): waits for one state of a list ("completed|failed"); true when it
# came. Tells what it knows of the task when it didn't.
sub wait_task
{
	my ($node, $task, $states, $seconds, $database) = @_;
	my $state = until_true(
		sub {
			my $now = task_state($node, $task, $database);
			return $now =~ /^(?:$states)$/ ? $now : undef;
		},
		$seconds);
	return $state if $state;
	explain_task($node, $task, $database);
	return '';
}

sub wait_settled
{
	my ($node, $task, $seconds, $database) = @_;
	return wait_task($node, $task, 'completed|failed|cancelled', $seconds, $database);
}

# settles(NODE, TASK, STATE, NAME, SECONDS, DATABASE): a test: the task ends, and in that state.
sub settles
{
	my ($node, $task, $state, $name, $seconds, $database) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $got = wait_settled($node, $task, $seconds, $database);
	my $result = is($got, $state, $name);
	# wait_settled has explained a task that did not settle at all
	explain_task($node, $task, $database) if !$result && $got;
	return $result;
}

# What a person would look at after a failure.
sub explain_task
{
	my ($node, $task, $database) = @_;
	my (undef, $detail) = $node->psql($database // 'postgres',
		"SELECT jsonb_pretty(jsonb_strip_nulls(to_jsonb(t))) FROM boocoder.tasks t WHERE id = $task");
	my (undef, $events) = $node->psql($database // 'postgres',
		"SELECT seq, kind, left(payload::text, 200) FROM boocoder.events WHERE task_id = $task ORDER BY seq DESC LIMIT 15");
	diag("task $task: ", $detail // 'server is not there');
	diag("last events (newest first):\n", $events // '');
	my @log = split /\n/, slurp($node->logfile);
	diag("server log:\n", join "\n", @log > 25 ? @log[ -25 .. -1 ] : @log);
}

sub events_of
{
	my ($node, $task, $kind) = @_;
	my $only = $kind ? "AND kind = '$kind'" : '';
	return sql_rows($node, "SELECT seq, kind, payload FROM boocoder.events WHERE task_id = $task $only ORDER BY seq");
}

# All that the agent said in a task, from the finished parts.
sub text_of
{
	my ($node, $task) = @_;
	return sql($node, "SELECT coalesce(string_agg(p.payload->>'text', '' ORDER BY p.message_id, p.seq), '')"
		  . " FROM boocoder.message_parts p JOIN boocoder.messages m ON m.id = p.message_id"
		  . " WHERE p.task_id = $task AND p.kind = 'text' AND m.role = 'assistant'");
}

# What the agent has said until now, from the events.
sub said_so_far
{
	my ($node, $task) = @_;
	return sql($node, "SELECT coalesce(string_agg(payload->>'delta', '' ORDER BY seq), '')"
		  . " FROM boocoder.events WHERE task_id = $task AND kind = 'text'");
}

# ---- processes ----

# The dispatcher of a database as the server sees it; '' when there is none.
sub dispatcher_pid
{
	my ($node, $database) = @_;
	my (undef, $pid) = $node->psql('postgres',
		'SELECT pid FROM pg_stat_activity WHERE backend_type = \'boocoder dispatcher\' AND datname = '
		  . literal($database // 'postgres'));
	return $pid // '';
}

sub wait_dispatcher
{
	my ($node, $seconds, $database) = @_;
	return until_true(sub { dispatcher_pid($node, $database) }, $seconds // 10);
}

# processes(CODE): all processes for which CODE is true, as {pid, ppid, start, cmdline, environ}. In cmdline and environ
# the NULs are line ends; environ is '' for processes of others.
sub processes
{
	my ($code) = @_;
	my @found;

	opendir my $proc, '/proc' or die "/proc: $!";
	for my $pid (grep { /^\d+$/ } readdir $proc)
	{
		my $stat = eval { slurp("/proc/$pid/stat") } // next;
		# pid (comm) state ppid ...; comm may hold blanks and parentheses
		my @field = split ' ', ($stat =~ /^.*\)\s+(.*)$/s)[0] // next;
		next if $field[0] =~ /^[ZX]$/;
		my %process = (pid => $pid, ppid => $field[1], start => $field[19]);
		for my $file (qw(cmdline environ))
		{
			$process{$file} = eval { slurp("/proc/$pid/$file") } // '';
			$process{$file} =~ tr/\0/\n/;
		}
		push @found, \%process if $code->(\%process);
	}
	closedir $proc;
	return @found;
}

# Agents of this server, with all that they started: known by the environment that boocoder gives them, or by a marker
# in their arguments (for those that empty their environment). PID namespaces hide nothing from here.
sub agent_pids
{
	my ($node, $marker) = @_;
	my $root = worktree_root($node);
	return processes(
		sub {
			my ($p) = @_;
			return 0 if $p->{pid} == $$;
			return 1 if $p->{environ} =~ /^BOOCODER_WORKTREE=\Q$root\E\//m;
			# The runner, bwrap and the guard also carry the marker, in the agent's arguments: they have to be gone too.
			return defined $marker && $p->{cmdline} =~ /\Q$marker\E/ ? 1 : 0;
		});
}

# The runners below a process (the dispatcher), spare ones included.
sub runner_pids
{
	my ($pid) = @_;
	return processes(sub { $_[0]{ppid} == $pid && $_[0]{cmdline} =~ /boocoder-runner/ });
}

sub alive
{
	my ($pid) = @_;
	my $stat = eval { slurp("/proc/$pid/stat") } // return 0;
	return $stat =~ /^.*\)\s+([A-Z])/s && $1 !~ /[ZX]/ ? 1 : 0;
}

# The same process as seen before, not another one that got its number.
sub same_process
{
	my ($seen) = @_;
	my ($now) = processes(sub { $_[0]{pid} == $seen->{pid} });
	return $now && $now->{start} == $seen->{start} ? 1 : 0;
}

sub report_processes
{
	my (@list) = @_;
	diag(sprintf("pid %d, parent %d: %s", $_->{pid}, $_->{ppid}, join ' ', split /\n/, $_->{cmdline})) for @list;
}

# none_left(NODE, MARKER, SECONDS): true when no agent process is left within the time (2 s unless told).
sub none_left
{
	my ($node, $marker, $seconds) = @_;
	my @left;
	my $gone = until_true(sub { @left = agent_pids($node, $marker); return @left == 0 }, $seconds // 2);
	report_processes(@left) unless $gone;
	return $gone ? 1 : 0;
}

1;
