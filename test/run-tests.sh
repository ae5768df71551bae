#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# Installs what is missing, builds, and runs all tests:
#
#   test/run-tests.sh [TAP FILE ...]
#
# Everything happens in a copy of the sources and a copy of the server below a temporary directory, as an unprivileged
# user (root hands over to user postgres); the system gets packages and nothing else. With TAP files (such as
# test/t/001_smoke.pl) only those run. Ends with the line "N passed, N failed"; the exit code is 1 when a test failed.
#
#   BOOCODER_SKIP_REAL_AGENTS=1  leaves out the tests with agents from npm
#   BOOCODER_AGENTS_DIR=DIR      where those are or get installed (default: .build/agents here)
#   BOOCODER_KEEP=1              keeps the temporary directory also when all is well
#   PG_CONFIG=PROGRAM            the server to build for
set -euo pipefail
. "$(dirname "$0")/common.sh"

passed=0
failed=0
failures=()
began=$SECONDS

# ---- prepare ----

packages=(cmocka:libcmocka-dev program=prove:perl perl=IPC::Run:libipc-run-perl)
[ -n "${BOOCODER_SKIP_REAL_AGENTS:-}" ] || packages+=(program=npm:npm)
[ "$(id -u)" != 0 ] || packages+=(program=sudo:sudo)
install_missing "${packages[@]}"
choose_user
if [ "$(id -u)" = 0 ]; then
	make_other_user
	export BOOCODER_OTHER_USER=$other_user
fi

work=$(mktemp -d "${TMPDIR:-/var/tmp}/boocoder-test.XXXXXX")
work=$(cd "$work" && pwd -P)
[ "$(id -u)" != 0 ] || chown "$unprivileged" "$work"
chmod 755 "$work"
finish()
{
	[ -z "${server_data:-}" ] || as_user "$server_bin/pg_ctl" -D "$server_data" -m immediate stop > /dev/null 2>&1 || true
	[ -z "${other_user:-}" ] || forget_other_user
}
trap finish EXIT

# stage NAME LOG COMMAND...: runs a command whose output is TAP and adds up its "ok" and "not ok" lines (skipped and
# to-do ones count as neither). A command that fails without saying what, or that tested nothing, is one failure.
stage()
{
	local name=$1 log=$2 code=0 ok not_ok
	shift 2
	say "$name"
	"$@" > "$log" 2>&1 < /dev/null || code=$?
	ok=$(grep -E '^ok( [0-9]+)? - ' "$log" | grep -cviE '# *(skip|todo)') || true
	not_ok=$(grep -E '^not ok( [0-9]+)? - ' "$log" | grep -cviE '# *todo') || true
	if [ "$not_ok" = 0 ] && { [ $code != 0 ] || [ "$ok" = 0 ]; } && ! grep -qE '^1\.\.0 # SKIP|skipped:' "$log"; then
		not_ok=1
		echo "exit code $code, $ok tests"
	fi
	passed=$((passed + ok))
	failed=$((failed + not_ok))
	echo "$name: $ok passed, $not_ok failed ($((SECONDS - began)) s so far)"
	if [ "$not_ok" != 0 ]; then
		failures+=("$name: $log")
		grep -vE '^ *ok\b|^ *# Subtest|^ *1\.\.[0-9]+$' "$log" | tail -n "${BOOCODER_TAIL:-80}"
	fi
}

copy_sources "$work/src"
as_user mkdir -p "$work/install" "$work/log"
cd "$work/src"

say "Building"
build_and_install "$work/src" "$work/install"
export PATH=$server_bin:$PATH
unset PGHOST PGPORT PGDATABASE PGUSER PGDATA PGOPTIONS

# ---- tests without a server ----

tap_files=("${@/#"$repo/"/}") # those of the copy
if [ ${#tap_files[@]} = 0 ]; then
	stage 'lint' "$work/log/lint" as_user bash test/lint.sh

	# cmocka and the replay of the corpora say it in their own words
	unit()
	{
		as_user env CMOCKA_MESSAGE_OUTPUT=TAP make -s PG_CONFIG="$(find_pg_config)" "$1"
	}
	stage 'unit tests' "$work/log/unit" unit check-unit
	stage 'fuzz corpora' "$work/log/fuzz" unit check-fuzz
fi

# ---- the SQL surface ----

# No preload: the tests play the dispatcher themselves.
regress()
{
	local code=0
	server_data=$work/regress-data
	as_user initdb -D "$server_data" -U postgres -A trust -N -E UTF8 --locale=C.UTF-8 > "$work/log/initdb" 2>&1
	as_user tee -a "$server_data/postgresql.conf" > /dev/null <<CONF
listen_addresses = ''
unix_socket_directories = '$work'
fsync = off
boocoder.worktree_root = '$work/regress-worktrees'
boocoder.probe_ttl = 0
boocoder.worktree_grace = 0
CONF
	as_user pg_ctl -D "$server_data" -l "$work/log/regress-server" -w start > /dev/null
	as_user env PGHOST="$work" PGUSER=postgres make -s PG_CONFIG="$(find_pg_config)" bindir="$server_bin" installcheck \
		> "$work/log/pg_regress" 2>&1 || code=$?
	# PostgreSQL 15 prints "test NAME ... ok", 16 and later "ok 1 - NAME".
	sed -E 's/^(test|    ) *([A-Za-z0-9_]+) +\.\.\. ok.*/ok - \2/; s/^(test|    ) *([A-Za-z0-9_]+) +\.\.\. FAILED.*/not ok - \2/' \
		"$work/log/pg_regress"
	[ $code = 0 ] || cat regression.diffs 2> /dev/null
	as_user pg_ctl -D "$server_data" -m fast -w stop > /dev/null
	server_data=
	return $code
}
if [ ${#tap_files[@]} = 0 ]; then
	stage 'pg_regress' "$work/log/regress" regress
fi

# ---- private clusters ----

if [ -z "${BOOCODER_SKIP_REAL_AGENTS:-}" ]; then
	agents=${BOOCODER_AGENTS_DIR:-$repo/.build/agents}
	mkdir -p "$agents" 2> /dev/null && as_user test -x "$agents" || agents=$work/agents
	say "Real agents"
	bash test/install-agents.sh "$agents" ||
		die "the real agents could not be installed (BOOCODER_SKIP_REAL_AGENTS=1 leaves them out)"
	BOOCODER_AGENTS_DIR=$(cd "$agents" && pwd -P)
	export BOOCODER_AGENTS_DIR
fi

[ ${#tap_files[@]} != 0 ] || tap_files=(test/t/*.pl)
for file in "${tap_files[@]}"; do
	name=$(basename "$file" .pl)
	stage "$name" "$work/log/$name" as_user make -s PG_CONFIG="$(find_pg_config)" PROVE_TESTS="$file" PROVE_FLAGS=--verbose check-tap
done

# ---- the sum ----

if [ $failed = 0 ] && [ -z "${BOOCODER_KEEP:-}" ]; then
	rm -rf "$work"
else
	say "Logs are in $work/log and $work/src/tmp_check/log"
	for failure in "${failures[@]}"; do
		echo "failed: $failure"
	done
fi
echo
echo "$passed passed, $failed failed"
[ $failed = 0 ]
