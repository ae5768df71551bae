# SPDX-License-Identifier: PostgreSQL
#
# Shell functions that quickstart.sh and run-tests.sh share (sourced, not run): what the host needs, an unprivileged
# user, and a build that goes into a copy of the server of its own, so that nothing on the system is changed but the
# packages installed.
#
# Sets: repo (the repository), unprivileged (user name), server_bin (programs of the copied server, after
# build_and_install).

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say()
{
	printf '\n\033[1m== %s\033[0m\n' "$*"
}

die()
{
	echo "error: $*" >&2
	exit 1
}

# ---- packages ----

# The pg_config of the server to build for: $PG_CONFIG, the one in PATH, or the newest of Debian's, with the files
# for building extensions.
find_pg_config()
{
	local candidate
	for candidate in ${PG_CONFIG:-} $(command -v pg_config || true) \
		$(ls -d /usr/lib/postgresql/*/bin/pg_config 2> /dev/null | sort -rV); do
		# Debian's clients have the makefiles, but not the headers
		if [ -f "$("$candidate" --pgxs 2> /dev/null)" ] && [ -f "$("$candidate" --includedir-server)/postgres.h" ] &&
			[ -x "$("$candidate" --bindir)/initdb" ]; then
			echo "$candidate"
			return
		fi
	done
}

# One line for each thing that is missing: the Debian package that has it.
missing_packages()
{
	local dev newest
	command -v cc > /dev/null && command -v make > /dev/null || echo build-essential
	command -v pkg-config > /dev/null || echo pkg-config
	command -v git > /dev/null || echo git
	command -v bwrap > /dev/null || echo bubblewrap
	for dev in libgit2:libgit2-dev jansson:libjansson-dev libcurl:libcurl4-openssl-dev "$@"; do
		case $dev in
			program=*) command -v "$(expr "$dev" : 'program=\([^:]*\)')" > /dev/null || echo "${dev#*:}" ;;
			perl=*) perl -M"$(expr "$dev" : 'perl=\(.*\):[^:]*$')" -e 1 2> /dev/null || echo "${dev##*:}" ;;
			*) pkg-config --exists "${dev%%:*}" 2> /dev/null || echo "${dev#*:}" ;;
		esac
	done
	if [ -z "$(find_pg_config)" ]; then
		newest=$(ls -d /usr/lib/postgresql/*/bin/initdb 2> /dev/null | sort -rV | head -n 1 | cut -d/ -f5)
		if [ -z "$newest" ]; then
			newest=$(apt-cache depends postgresql 2> /dev/null |
				sed -n 's/.*Depends: postgresql-\([0-9][0-9]*\)$/\1/p' | head -n 1)
		fi
		if [ -n "$newest" ]; then
			echo "postgresql-$newest postgresql-server-dev-$newest"
		else
			echo "postgresql postgresql-server-dev-all"
		fi
	fi
}

# install_missing [KIND:PACKAGE ...]: what every build needs, and more, given as pkgconfigname:package,
# program=NAME:package or perl=Module:package.
install_missing()
{
	local packages sudo=
	packages=$(missing_packages "$@" | tr '\n' ' ')
	[ -n "${packages// /}" ] || return 0

	command -v apt-get > /dev/null ||
		die "please install what these Debian packages have, then run this again: $packages"
	if [ "$(id -u)" != 0 ]; then
		command -v sudo > /dev/null ||
			die "please have these packages installed (apt-get install $packages), then run this again"
		sudo=sudo
	fi
	say "Installing: $packages"
	$sudo apt-get update -q > /dev/null || true
	# Once more, now that the package lists are there: the server's version may have been unknown.
	packages=$(missing_packages "$@" | tr '\n' ' ')
	# shellcheck disable=SC2086
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $packages > /dev/null ||
		die "apt-get could not install: $packages"
	packages=$(missing_packages "$@" | tr '\n' ' ')
	[ -z "${packages// /}" ] || die "still missing after apt-get: $packages"
}

# ---- the unprivileged user ----

# A server refuses to run as root. Root hands over to user postgres (every server package makes one).
choose_user()
{
	if [ "$(id -u)" != 0 ]; then
		unprivileged=$(id -un)
	else
		unprivileged=${BOOCODER_USER:-postgres}
		id "$unprivileged" > /dev/null 2>&1 || useradd --system --create-home "$unprivileged" ||
			die "can't create user $unprivileged"
	fi
}

# A second user, whom the unprivileged one may act as by sudo: whose repositories and agents are not the server's.
# Sets other_user; only root can make one.  forget_other_user takes back what that changed.
make_other_user()
{
	other_user=boocoder-test-other
	id "$other_user" > /dev/null 2>&1 || useradd --system --create-home "$other_user" || die "can't create user $other_user"
	(umask 337 && echo "$unprivileged ALL=($other_user) NOPASSWD: ALL" > /etc/sudoers.d/boocoder-test)
}

forget_other_user()
{
	rm -f /etc/sudoers.d/boocoder-test
	pkill -KILL -u "$other_user" 2> /dev/null || true
	userdel --remove "$other_user" > /dev/null 2>&1 || true
}

# as_user COMMAND...: as the unprivileged user, from the present directory
as_user()
{
	if [ "$(id -un)" = "$unprivileged" ]; then
		"$@"
	else
		runuser -u "$unprivileged" -- env HOME="$(getent passwd "$unprivileged" | cut -d: -f6)" \
			USER="$unprivileged" LOGNAME="$unprivileged" "$@"
	fi
}

# ---- build ----

# copy_sources DIRECTORY: the files of the working tree (committed or not, but nothing ignored), owned by the
# unprivileged user
copy_sources()
{
	mkdir -p "$1"
	if git -C "$repo" -c safe.directory="$repo" rev-parse --git-dir > /dev/null 2>&1; then
		(cd "$repo" && git -c safe.directory="$repo" ls-files -z --cached --others --exclude-standard |
			while IFS= read -r -d '' file; do
				if [ -e "$file" ] || [ -L "$file" ]; then printf '%s\0' "$file"; fi
			done | tar -c --null -T -) | tar -x -C "$1"
	else
		(cd "$repo" && tar -c --exclude=./.git --exclude=./.build .) | tar -x -C "$1"
	fi
	[ "$(id -u)" != 0 ] || chown -R "$unprivileged" "$1"
}

# build_and_install SOURCES DIRECTORY: builds in SOURCES and installs into a copy of the server below DIRECTORY.
# A server finds its files relative to its program, so the copy is a full one that nobody else uses; only the system's
# shared libraries and time zones stay where they are. Sets server_bin.
build_and_install()
{
	local sources=$1 to=$2 config part
	config=$(find_pg_config)
	[ -n "$config" ] || die "no PostgreSQL with files for building extensions (pg_config --pgxs)"

	as_user make -C "$sources" -s -j2 PG_CONFIG="$config" with_llvm=no ||
		die "the build failed"
	for part in --bindir --pkglibdir --sharedir; do
		part=$("$config" $part)
		as_user mkdir -p "$to$(dirname "$part")"
		[ -d "$to$part" ] || as_user cp -a --no-preserve=ownership "$part" "$to$(dirname "$part")/"
	done
	as_user make -C "$sources" -s PG_CONFIG="$config" with_llvm=no DESTDIR="$to" install > /dev/null ||
		die "make install failed"
	server_bin=$to$("$config" --bindir)
	"$server_bin/pg_config" --pkglibdir | grep -q "^$to/" ||
		die "the copied server does not find its own files"
}
