#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# The benchmarks, each with its figure and what to hold it against in the same run:
#
#   test/bench/run.sh [latency|enqueue|drain|events|memory|permission|worktree|warm ...]
#
# warm compares real agents, too, where BOOCODER_AGENTS_DIR says that they are (test/install-agents.sh).
#
# Builds into a private copy of the server, as the tests do, and uses a cluster of its own with fsync on.
# Counts: BENCH_TASKS (drain, memory), BENCH_LATENCY, BENCH_EVENTS, BENCH_PERMISSIONS,
# BENCH_FILES (worktree).
set -euo pipefail
. "$(dirname "$0")/../common.sh"

install_missing libpq:libpq-dev
choose_user
work=$(mktemp -d "${TMPDIR:-/var/tmp}/boocoder-bench.XXXXXX")
work=$(cd "$work" && pwd -P)
[ "$(id -u)" != 0 ] || chown "$unprivileged" "$work"
chmod 755 "$work"
copy_sources "$work/src"
as_user mkdir -p "$work/install"
cd "$work/src"
say 'Building'
build_and_install "$work/src" "$work/install"
export PATH=$server_bin:$PATH
runner=$(find "$work/install" -name boocoder-runner | head -n 1)
conninfo="host=$work port=54331 user=postgres dbname=bench"

finish()
{
	as_user pg_ctl -D "$work/data" -m immediate stop > /dev/null 2>&1 || true
	rm -rf "$work"
}
trap finish EXIT

sql() { as_user psql -h "$work" -p 54331 -U postgres -d bench -X -q -At -v ON_ERROR_STOP=1 -c "$1"; }
ms()
{
	local begin
	begin=$(date +%s%N)
	"$@" > /dev/null
	echo $((($(date +%s%N) - begin) / 1000000))
}
setting() { sql "ALTER SYSTEM SET $1" && sql 'SELECT pg_reload_conf()' > /dev/null && sleep 0.3; }
settled() { while [ "$(sql "SELECT count(*) FROM boocoder.tasks WHERE state IN ('pending', 'running')")" != 0 ]; do sleep 0.05; done; }
dispatcher() { sql "SELECT dispatcher_pid FROM boocoder.status"; }
anonymous_kb() { awk '/^RssAnon/ { print $2 }' "/proc/$1/status"; }

as_user initdb -D "$work/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 > /dev/null
as_user tee -a "$work/data/postgresql.conf" > /dev/null <<CONF
port = 54331
listen_addresses = ''
unix_socket_directories = '$work'
shared_preload_libraries = 'boocoder'
shared_buffers = '512MB'
max_wal_size = '4GB'
boocoder.worktree_root = '$work/worktrees'
boocoder.probe_ttl = 0
boocoder.sandbox_ro_paths = '$work/src/test:$work/bin:${BOOCODER_AGENTS_DIR:-/opt}:$work/settings'
CONF
as_user pg_ctl -D "$work/data" -l "$work/log" -w start > /dev/null
as_user createdb -h "$work" -p 54331 -U postgres bench
sql 'CREATE EXTENSION boocoder'
as_user git init -q "$work/project"
as_user sh -c "cd '$work/project' && echo hello > a.txt && git add . && git -c user.name=b -c user.email=b@example.org commit -q -m one"
sql "SELECT boocoder.add_project('bench', '$work/project')" > /dev/null

as_user mkdir -p "$work/bin"
as_user cc -O2 -static -x c -o "$work/bin/clock" - <<'C'
#include <stdio.h>
#include <time.h>
int main(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	printf("%.3f\n", t.tv_sec * 1e3 + t.tv_nsec / 1e6);
	return 0;
}
C
sql "SELECT boocoder.register_provider('clock', 'command', ARRAY['$work/bin/clock'])" > /dev/null
sql "SELECT boocoder.register_provider('fake', 'acp', ARRAY['/usr/bin/perl', '$work/src/test/agents/fake-acp'])" > /dev/null

# The time from before a spawn to the first instruction of the program, without boocoder.
bare() # LABEL COMMAND...
{
	local label=$1
	shift
	perl -MTime::HiRes=time -e 'my ($label, @c) = @ARGV; my @t;
		for (1 .. 100) { select undef, undef, undef, 0.01; my $t = time; open my $p, "-|", @c or die; my $s = <$p>; close $p; push @t, $s - 1000 * $t }
		@t = sort { $a <=> $b } @t; printf "%-34s p50 %8.3f ms   p99 %8.3f ms   (n = 100)\n", $label, $t[50], $t[98]' -- "$label" "$@"
}

latency()
{
	local n=${BENCH_LATENCY:-300} session i
	as_user cc -O2 -D_GNU_SOURCE -o "$work/bin/latency" test/bench/dispatch_latency.c \
		$(pkg-config --cflags --libs libpq)
	for sandbox in off on; do
		setting "boocoder.sandbox = $sandbox"
		echo "sandbox $sandbox, a new worktree for each task"
		as_user "$work/bin/latency" "$conninfo" "$n" clock null 30
		session=$(sql 'SELECT min(id) FROM boocoder.sessions')
		echo "sandbox $sandbox, one worktree"
		as_user "$work/bin/latency" "$conninfo" "$n" clock "$session" 30
	done
	echo 'beside it, the program spawned by itself, as the same user'
	as_user bash -c "$(declare -f bare); bare 'bare spawn' '$work/bin/clock'"
	# the very command line of an agent's sandbox, as a running one has it
	sql "SELECT boocoder.register_provider('sleeper', 'command', ARRAY['sleep', '3'])" > /dev/null
	sql "INSERT INTO boocoder.tasks (project_id, session_id, agent, input) VALUES (1, $session, 'sleeper', '0')"
	for i in $(seq 60); do
		! pgrep -f 'bwrap.*sleep 3 0$' > /dev/null || break
		sleep 0.05
	done
	# but for what its runner had opened: that has a name, too
	tr '\0' '\n' < "/proc/$(pgrep -o -f 'bwrap.*sleep 3 0$')/cmdline" | sed '/^--$/q' |
		awk '/^--(ro-)?bind-fd$/ { sub(/-fd$/, ""); print; getline; getline; print } { print }' > "$work/sandbox"
	chmod 644 "$work/sandbox"
	as_user bash -c "$(declare -f bare); mapfile -t sandbox < '$work/sandbox'; bare 'bare spawn in the same sandbox' \"\${sandbox[@]}\" '$work/bin/clock'"
	settled
	echo "a commit with its flush: $(pgbench -n -h "$work" -p 54331 -U postgres -t 500 -f <(echo 'SELECT pg_current_xact_id();') bench 2> /dev/null | awk '/latency average/ { print $4 }') ms"
	echo 'targets: claim p50 1 ms, p99 5 ms; first instruction at most 3 ms above the bare spawn'
}

enqueue()
{
	local with without rates i
	setting 'boocoder.max_running = 0'
	with=$(ms as_user psql -h "$work" -p 54331 -U postgres -d bench -X -q -c "INSERT INTO boocoder.tasks (project_id, agent, input) SELECT 1, 'clock', 'x' FROM generate_series(1, 100000)")
	echo "INSERT ... SELECT of 100000 tasks: $with ms, $(perl -e "printf '%d', 100000 / $with * 1000") rows/s (target 50000)"
	echo "INSERT INTO boocoder.tasks (project_id, agent, input) VALUES (1, 'clock', 'x');" > "$work/insert.sql"
	chmod 644 "$work/insert.sql"
	for i in 1 2 3 4 5; do
		sql 'ALTER TABLE boocoder.tasks ENABLE TRIGGER wake'
		with=$(as_user pgbench -n -h "$work" -p 54331 -U postgres -c 8 -j 2 -T 3 -f "$work/insert.sql" bench 2> /dev/null | awk '/^tps/ { print $3 }')
		sql 'ALTER TABLE boocoder.tasks DISABLE TRIGGER wake'
		without=$(as_user pgbench -n -h "$work" -p 54331 -U postgres -c 8 -j 2 -T 3 -f "$work/insert.sql" bench 2> /dev/null | awk '/^tps/ { print $3 }')
		echo "$with $without"
	done > "$work/pairs"
	sql 'ALTER TABLE boocoder.tasks ENABLE TRIGGER wake'
	rates=$(awk '{ print $1 / $2 }' "$work/pairs" | sort -n | sed -n 3p)
	echo "8 committers, with the trigger / without: $(tr '\n' ';' < "$work/pairs") median ratio $rates (target 0.97)"
	sql "DELETE FROM boocoder.tasks WHERE state = 'pending'"
	setting 'boocoder.max_running = 4'
}

drained() # COUNT
{
	sql "INSERT INTO boocoder.tasks (project_id, session_id, agent, input) SELECT 1, (SELECT max(id) FROM boocoder.sessions) - g % 4, 'clock', 'x' FROM generate_series(1, $1) g"
	settled
}

drain()
{
	local n=${BENCH_TASKS:-200} t
	for sandbox in off on; do
		setting "boocoder.sandbox = $sandbox"
		sql "INSERT INTO boocoder.sessions (project_id) SELECT 1 FROM generate_series(1, 4)"
		t=$(ms drained "$n")
		echo "sandbox $sandbox: $n no-op tasks in 4 sessions in $t ms, $(perl -e "printf '%.1f', $n / $t * 1000") tasks/s"
	done
	as_user perl -MTime::HiRes=time -e 'my ($n, @c) = @ARGV; my $t = time; for (1 .. $n) { system(@c) } printf "the machine: %.1f spawns/s one after the other\n", $n / (time - $t)' -- 300 /bin/true
	as_user perl -MTime::HiRes=time -e 'my ($n, @c) = @ARGV; my $t = time; for (1 .. $n) { system(@c) } printf "the machine: %.1f spawns/s in bubblewrap, one after the other\n", $n / (time - $t)' -- 100 bwrap --ro-bind / / --proc /proc --dev /dev --unshare-pid --die-with-parent /bin/true
}

events()
{
	local n=${BENCH_EVENTS:-50000} before after t lag
	setting 'boocoder.max_running = 8'
	before=$(sql 'SELECT count(*) FROM boocoder.events')
	t=$(perl -MTime::HiRes=time -e 'print time')
	sql "INSERT INTO boocoder.tasks (project_id, agent, input) SELECT 1, 'fake', 'flood $n' FROM generate_series(1, 8)"
	while [ "$(sql "SELECT count(*) FROM boocoder.tasks WHERE state IN ('pending', 'running')")" != 0 ]; do
		sql "SELECT coalesce(round(extract(epoch FROM clock_timestamp() - max(created_at)) * 1000), 0) FROM (SELECT created_at FROM boocoder.events ORDER BY seq DESC LIMIT 1) e"
		sleep 0.1
	done > "$work/lags"
	after=$(sql 'SELECT count(*) FROM boocoder.events')
	t=$(perl -MTime::HiRes=time -e "printf '%.2f', time - $t")
	lag=$(sed '1,5d;$d' "$work/lags" | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }')
	echo "8 agents, $((after - before)) events in $t s: $(perl -e "printf '%d', ($after - $before) / $t") rows/s, start and end included (target 20000)"
	echo "age of the newest visible event while they ran: median $lag ms (target 100)"
	setting 'boocoder.max_running = 4'
}

memory()
{
	local n=${BENCH_TASKS:-200} pid before after spare
	setting 'boocoder.sandbox = off'
	sql "INSERT INTO boocoder.tasks (project_id, session_id, agent, input) SELECT 1, (SELECT min(id) FROM boocoder.sessions), 'clock', 'x' FROM generate_series(1, 50)"
	sql "INSERT INTO boocoder.tasks (project_id, agent, input) SELECT 1, 'fake', 'flood 20000' FROM generate_series(1, 4)"
	settled
	pid=$(dispatcher)
	before=$(anonymous_kb "$pid")
	sql "INSERT INTO boocoder.tasks (project_id, session_id, agent, input) SELECT 1, (SELECT min(id) FROM boocoder.sessions), 'clock', 'x' FROM generate_series(1, $n)"
	sql "INSERT INTO boocoder.tasks (project_id, agent, input) SELECT 1, 'fake', 'flood ${BENCH_EVENTS:-50000}' FROM generate_series(1, 8)"
	settled
	after=$(anonymous_kb "$pid")
	spare=$(pgrep -P "$pid" -f boocoder-runner | head -n 1)
	echo "dispatcher: $before kB before, $after kB after $n tasks and $((8 * ${BENCH_EVENTS:-50000})) events: $((after - before)) kB (target below 1024)"
	echo "a spare runner: $(awk '/^VmRSS/ { print $2 }' "/proc/$spare/status") kB resident, $(anonymous_kb "$spare") kB of its own"
	setting 'boocoder.sandbox = on'
}

permission()
{
	local n=${BENCH_PERMISSIONS:-200} task
	as_user cc -O2 -D_GNU_SOURCE -o "$work/bin/permission" test/bench/permission_latency.c \
		$(pkg-config --cflags --libs libpq)
	sql "UPDATE boocoder.providers SET permission_policy = 'ask' WHERE name = 'fake'"
	task=$(sql "SELECT boocoder.run('$(printf 'ask; %.0s' $(seq "$n"))', 'bench', agent => 'fake')")
	as_user "$work/bin/permission" "$conninfo" "$task" "$n"
	sql "UPDATE boocoder.providers SET permission_policy = 'allow' WHERE name = 'fake'"
	task=$(sql "SELECT boocoder.run('$(printf 'ask; %.0s' $(seq "$n"))', 'bench', agent => 'fake')")
	settled
	echo "answered by a rule instead, a round: $(sql "SELECT round(1000 * extract(epoch FROM max(requested_at) - min(requested_at)) / ($n - 1), 3) FROM boocoder.permission_requests WHERE task_id = $task") ms"
	echo 'target: an answer unblocks within 100 ms'
}

worktree()
{
	# shellcheck disable=SC2086
	as_user env RUNNER="$runner" RUNS="${RUNS:-3}" sh test/bench/worktree_diff.sh ${BENCH_FILES:-100 5000 50000}
}

# Memory of a process and all below it, shared pages counted once, in kB.
tree_kb()
{
	perl -e 'my ($root) = @ARGV; my %below; for (glob "/proc/[0-9]*/stat") { open my $f, "<", $_ or next; my ($pid, $rest) = <$f> =~ /^(\d+) .*\) (.*)$/ or next; push @{ $below{ (split " ", $rest)[1] } }, $pid }
		my @list = ($root); my $sum = 0; while (defined(my $pid = shift @list)) { push @list, @{ $below{$pid} // [] }; open my $f, "<", "/proc/$pid/smaps_rollup" or next; /^Pss:\s+(\d+)/ and $sum += $1 while <$f> } print $sum' "$1"
}

# One turn of a chat, in ms from the commit to its end; cold: without what an earlier one left.
turn_ms() # CHAT AGENT INPUT
{
	local task
	task=$(sql "INSERT INTO boocoder.tasks (project_id, session_id, chat_id, agent, input) SELECT 1, session_id, id, '$2', '$3' FROM boocoder.chats WHERE id = $1 RETURNING id")
	[ "$(sql "SELECT boocoder.wait($task, '60s')")" = completed ] || die "a turn of $2 failed: $(sql "SELECT error FROM boocoder.tasks WHERE id = $task")"
	sql "SELECT round(1000 * extract(epoch FROM ended_at - created_at)) FROM boocoder.tasks WHERE id = $task"
}

warm()
{
	local n=${BENCH_LATENCY:-300} session chat agent cold warm i
	as_user cc -O2 -D_GNU_SOURCE -o "$work/bin/latency" test/bench/dispatch_latency.c $(pkg-config --cflags --libs libpq)
	session=$(sql 'INSERT INTO boocoder.sessions (project_id) VALUES (1) RETURNING id')
	chat=$(sql "INSERT INTO boocoder.chats (session_id) VALUES ($session) RETURNING id")
	echo "a kept agent (scripted), $n turns"
	as_user "$work/bin/latency" "$conninfo" "$n" fake "$session" 30 "$chat" clock
	setting 'boocoder.max_warm_backends = 0'
	echo 'beside it, an agent that is started for each turn'
	as_user "$work/bin/latency" "$conninfo" $((n / 5)) fake "$session" 30 "$chat" clock
	setting 'boocoder.max_warm_backends = 8'
	echo 'target: the prompt is read p50 5 ms after the commit'
	[ -n "${BOOCODER_AGENTS_DIR:-}" ] || return 0
	# it ends with its standard input, which is held open as long as this runs
	mkfifo "$work/hold"
	as_user "$BOOCODER_AGENTS_DIR/bin/node" test/agents/llm-stub.mjs --port-file "$work/port" --log "$work/llm.log" < "$work/hold" > /dev/null 2>&1 &
	exec 9> "$work/hold"
	until [ -s "$work/port" ]; do sleep 0.1; done
	mkdir -p "$work/settings"
	perl -Itest/t/lib -MBoocoderAgents=agent_rows,settings_files -MJSON::PP -e 'my ($url, $dir) = @ARGV; my %s = settings_files();
		for (keys %s) { open my $f, ">", "$dir/$_" or die; print $f $s{$_} }
		my $q = sub { my $t = shift; $t =~ s/\x27/\x27\x27/g; "\x27$t\x27" };
		for my $r (agent_rows($url, $dir)) { next unless $r->{transport} =~ /^(?:acp|opencode_server)$/;
			print "INSERT INTO boocoder.providers (name, label, transport, kind, command, env, default_model) VALUES (", join(", ", $q->($r->{name}), $q->($r->{label}), $q->($r->{transport}), $q->($r->{kind}), "ARRAY[" . join(",", map { $q->($_) } @{ $r->{command} }) . "]", $q->(JSON::PP->new->encode($r->{env})), $r->{transport} eq "acp" ? "NULL" : $q->($r->{model})), ");\n" }' \
		"http://127.0.0.1:$(cat "$work/port")" "$work/settings" > "$work/agents.sql"
	chmod -R a+rX "$work/settings" "$work/agents.sql"
	as_user psql -h "$work" -p 54331 -U postgres -d bench -X -q -v ON_ERROR_STOP=1 -f "$work/agents.sql"
	for agent in $(sql "SELECT string_agg(name, ' ' ORDER BY name) FROM boocoder.providers WHERE label <> 'fake' AND NOT builtin AND name NOT IN ('fake', 'clock', 'sleeper')"); do
		session=$(sql 'INSERT INTO boocoder.sessions (project_id) VALUES (1) RETURNING id')
		chat=$(sql "INSERT INTO boocoder.chats (session_id) VALUES ($session) RETURNING id")
		cold=$(turn_ms "$chat" "$agent" '!end hello')
		warm=$(for i in 1 2 3 4 5; do turn_ms "$chat" "$agent" '!end hello'; done | sort -n | sed -n 3p)
		echo "$agent: a cold turn $cold ms, a warm one $warm ms (median of 5), $(($(tree_kb "$(sql "SELECT coalesce((SELECT s.pid FROM boocoder.servers s WHERE s.id = b.server_id), b.pid) FROM boocoder.backends b WHERE b.chat_id = $chat")") / 1024)) MB kept"
	done
}

for benchmark in ${*:-latency enqueue drain events memory permission worktree warm}; do
	say "$benchmark"
	"$benchmark"
done
