#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# From a fresh clone to a reviewed change, in one command:
#
#   test/quickstart.sh [DIRECTORY]
#
# Installs what is missing (apt, as root or through sudo), builds boocoder, makes a PostgreSQL server of its own and a
# small git repository in DIRECTORY, gives an agent a task, shows what it does, what it changed, and applies it.
# The server keeps running; "test/quickstart.sh stop" stops it. Running it again starts over with a fresh repository
# state and the same server.
#
# DIRECTORY is /var/lib/boocoder-quickstart for root, ~/.local/share/boocoder-quickstart for everyone else.
set -euo pipefail
. "$(dirname "$0")/common.sh"

command=start
if [ "${1:-}" = stop ]; then
	command=stop
	shift
fi
if [ "$(id -u)" = 0 ]; then
	dir=${1:-/var/lib/boocoder-quickstart}
else
	dir=${1:-${XDG_DATA_HOME:-$HOME/.local/share}/boocoder-quickstart}
fi
port=${BOOCODER_PORT:-54329}
database=demo

# ---- where ----

[ "$command" = stop ] || install_missing
choose_user
mkdir -p "$dir"
dir=$(cd "$dir" && pwd -P)
[ "$(id -u)" != 0 ] || chown "$unprivileged" "$dir"
chmod 700 "$dir"
cd "$dir"
as_user test -w "$dir" || die "user $unprivileged can't write to $dir: choose another directory"

data=$dir/data
sockets=$dir/run
demo=$dir/project

stop_server()
{
	local pg_ctl
	pg_ctl=$(find "$dir/install" -path '*/bin/pg_ctl' 2> /dev/null | head -n 1) || true
	if [ -n "$pg_ctl" ] && as_user "$pg_ctl" -D "$data" status > /dev/null 2>&1; then
		as_user "$pg_ctl" -D "$data" -m fast -w stop > /dev/null
	fi
}

if [ "$command" = stop ]; then
	stop_server
	echo "The server in $dir is stopped. Remove the directory to remove everything."
	exit 0
fi

# ---- build, server ----

say "Building boocoder in $dir (nothing outside is changed)"
stop_server
rm -rf "$dir/build" "$dir/install"
copy_sources "$dir/build"
as_user mkdir -p "$sockets" "$dir/install"
build_and_install "$dir/build" "$dir/install"

if [ ! -s "$data/PG_VERSION" ] || [ "$(cat "$data/PG_VERSION")" != "$("$server_bin/postgres" -V | sed 's/[^0-9]*\([0-9]*\).*/\1/')" ]; then
	say "A server of its own: $data"
	rm -rf "$data"
	as_user "$server_bin/initdb" -D "$data" -U boocoder -A trust -N -E UTF8 --locale=C.UTF-8 > "$dir/initdb.log" 2>&1 ||
		die "initdb failed: see $dir/initdb.log"
	as_user tee -a "$data/postgresql.conf" > /dev/null <<CONF
listen_addresses = ''
unix_socket_directories = '$sockets'
port = $port
shared_preload_libraries = 'boocoder'
boocoder.worktree_root = '$dir/worktrees'
CONF
fi
as_user "$server_bin/pg_ctl" -D "$data" -l "$dir/server.log" -w start > /dev/null ||
	{ tail -n 20 "$dir/server.log"; die "the server did not start: see $dir/server.log"; }

psql()
{
	as_user env PGHOST="$sockets" PGPORT="$port" PGUSER=boocoder PGDATABASE="${db:-$database}" PGOPTIONS='-c client_min_messages=notice' \
		"$server_bin/psql" -X -q -v ON_ERROR_STOP=1 "$@"
}

# ---- a project and an agent ----

say "A demo project: $demo"
if [ ! -d "$demo/.git" ]; then
	as_user git init -q -b main "$demo"
	as_user tee "$demo/greet.py" > /dev/null <<'PYTHON'
def greet(name):
    print "Hello, %s!" % name

def bye(name):
    print "Bye, %s." % name

greet("world")
bye("world")
PYTHON
	as_user git -C "$demo" add -A
	as_user git -C "$demo" -c user.name=Demo -c user.email=demo@example.org commit -q -m 'A script for an old Python'
else
	# Start over: what an earlier run applied goes back to the commit.
	as_user git -C "$demo" checkout -q -- .
fi
as_user cat "$demo/greet.py"

# The same version with other SQL (a changed working tree): the demo database starts anew.
script=$(cat "$dir"/build/sql/boocoder--*.sql | cksum)
if [ "$(cat "$dir/script.cksum" 2> /dev/null)" != "$script" ]; then
	db=postgres psql -c "SET client_min_messages = warning" -c "DROP DATABASE IF EXISTS $database" -c "CREATE DATABASE $database"
	psql -c 'CREATE EXTENSION boocoder'
	echo "$script" > "$dir/script.cksum"
fi

# The agent is a codemod: any program can be one. It runs in a worktree of its own, in a sandbox.
codemod='echo "Task: $0"
for file in *.py; do
	echo "Looking at $file"
	sed -i -E '\''s/^([[:space:]]*)print "(.*)" % (.*)$/\1print("\2" % \3)/'\'' "$file"
done
echo "Rewrote every print statement."'

psql -v path="$demo" -v codemod="$codemod" > /dev/null <<'SQL'
SELECT boocoder.add_project('demo', :'path')
	WHERE NOT EXISTS (SELECT FROM boocoder.projects WHERE name = 'demo');
SELECT boocoder.register_provider('codemod', 'command', ARRAY['/bin/sh', '-c', :'codemod'])
	WHERE NOT EXISTS (SELECT FROM boocoder.providers WHERE name = 'codemod');
SQL

# ---- the job ----

say "One INSERT is one task"
echo "INSERT INTO boocoder.tasks (project_id, agent, input) SELECT id, 'codemod', 'Make it run on Python 3' ..."
task=$(psql -A -t <<'SQL'
INSERT INTO boocoder.tasks (project_id, agent, input)
	SELECT id, 'codemod', 'Make it run on Python 3' FROM boocoder.projects WHERE name = 'demo'
	RETURNING id;
SQL
)

say "CALL boocoder.attach($task): what the agent does, as it happens"
psql -c "CALL boocoder.attach($task)"

state=$(psql -A -t -c "SELECT boocoder.wait($task, '60s')")
if [ "$state" != completed ]; then
	psql -x -c "SELECT state, failure_reason, error FROM boocoder.tasks WHERE id = $task"
	psql -c "SELECT * FROM boocoder.doctor()"
	die "the task is $state"
fi

say "SELECT boocoder.diff($task): what waits for your decision; the project itself is untouched"
psql -A -t -c "SELECT boocoder.diff($task)"

say "SELECT * FROM boocoder.apply($task)"
psql -c "SELECT * FROM boocoder.apply($task)"
for _ in $(seq 600); do
	pending=$(psql -A -t -c "SELECT count(*) FROM boocoder.pending_changes WHERE task_id = $task AND status IN ('pending', 'applying')")
	[ "$pending" != 0 ] || break
	sleep 0.1
done
psql -c "SELECT id, path, kind, status, error FROM boocoder.pending_changes WHERE task_id = $task"
[ "$(psql -A -t -c "SELECT count(*) FROM boocoder.pending_changes WHERE task_id = $task AND status <> 'applied'")" = 0 ] ||
	die "the change was not applied"

say "The file in the project now"
as_user cat "$demo/greet.py"
as_user grep -q 'print("Hello, %s!" % name)' "$demo/greet.py" || die "the file did not change"

# ---- what next ----

prefix=
[ "$(id -u)" != 0 ] || prefix="runuser -u $unprivileged -- "
cat <<TEXT

Everything works. The server keeps running; here is the way in:

  $prefix$server_bin/psql -h $sockets -p $port -U boocoder $database

Three things to try there:

  1. Another task, and wait for it:
       SELECT boocoder.run('Tidy up', 'demo', agent => 'codemod');
       SELECT * FROM boocoder.ls();   SELECT * FROM boocoder.inbox;
  2. Your own agent (any program that edits files, or one that speaks the Agent Client Protocol):
       SELECT boocoder.register_provider('mine', 'acp', ARRAY['/opt/my-agent/bin/agent', 'acp']);
       SELECT name, transport, command FROM boocoder.providers;
  3. What the server is doing, and what to mend when nothing runs:
       SELECT * FROM boocoder.status;   SELECT * FROM boocoder.doctor();

To stop the server: $0 stop${1:+ $dir}
TEXT
