#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# Installs the real coding agents of the test suite from npm, at pinned versions:
#
#   test/install-agents.sh [DIRECTORY]        (default: .build/agents in the repository)
#
# Afterwards DIRECTORY/bin has node, opencode and qwen, each of which answered --version as expected. A second run
# finds that out and changes nothing. A node of its own comes first: under an old node npm doesn't fail, it silently
# takes an older agent.
set -euo pipefail

NODE_VERSION=24.9.0
OPENCODE_VERSION=1.18.33
QWEN_VERSION=0.24.4

here=$(cd "$(dirname "$0")" && pwd)
dir=${1:-$here/../.build/agents}
mkdir -p "$dir/bin"
dir=$(cd "$dir" && pwd -P)

die()
{
	echo "install-agents: $*" >&2
	exit 1
}

# has NAME VERSION: DIRECTORY/bin/NAME runs and says that version
has()
{
	[ -x "$dir/bin/$1" ] || return 1
	# A private home: asking for a version must not leave anything in the user's.
	local home answer
	home=$(mktemp -d)
	answer=$(HOME=$home timeout 60 "$dir/bin/$1" --version 2>/dev/null | head -n 1) || true
	rm -rf "$home"
	[ "${answer#v}" = "$2" ]
}

# npm_install SUBDIRECTORY PACKAGE
npm_install()
{
	echo "install-agents: $2"
	mkdir -p "$dir/$1"
	(cd "$dir/$1" && npm install --prefix . --no-fund --no-audit --loglevel=error "$2" >&2) ||
		die "npm could not install $2"
}

# program NAME COMMAND...: DIRECTORY/bin/NAME runs COMMAND (no symbolic links: qwen's start file looks for its
# neighbours, and needs our node whatever PATH says)
program()
{
	local name=$1
	shift
	{
		echo '#!/bin/sh'
		echo "exec $(printf "'%s' " "$@")\"\$@\""
	} > "$dir/bin/$name.new"
	chmod 755 "$dir/bin/$name.new"
	mv "$dir/bin/$name.new" "$dir/bin/$name"
}

if has node $NODE_VERSION && has opencode $OPENCODE_VERSION && has qwen $QWEN_VERSION; then
	echo "install-agents: node $NODE_VERSION, opencode $OPENCODE_VERSION, qwen $QWEN_VERSION are in $dir"
	exit 0
fi

command -v npm > /dev/null || die "npm is missing (Debian: apt-get install npm)"
case $(uname -s)-$(uname -m) in
	Linux-x86_64) platform=linux-x64 ;;
	Linux-aarch64) platform=linux-arm64 ;;
	*) die "no agents for $(uname -s) on $(uname -m)" ;;
esac

if ! has node $NODE_VERSION; then
	npm_install node "node-$platform@$NODE_VERSION"
	program node "$dir/node/node_modules/node-$platform/bin/node"
	has node $NODE_VERSION || die "node $NODE_VERSION does not run"
fi

# From here on npm itself and every install script run under that node.
export PATH=$dir/node/node_modules/node-$platform/bin:$PATH

if ! has opencode $OPENCODE_VERSION; then
	npm_install opencode "opencode-ai@$OPENCODE_VERSION"
	package=$dir/opencode/node_modules/opencode-ai
	program opencode "$package/bin/opencode.exe"
	if ! has opencode $OPENCODE_VERSION; then
		# An npm that runs no install scripts leaves a placeholder in place of the program.
		(cd "$package" && node ./postinstall.mjs >&2) || true
	fi
	has opencode $OPENCODE_VERSION || die "opencode $OPENCODE_VERSION does not run"
fi

if ! has qwen $QWEN_VERSION; then
	npm_install qwen "@qwen-code/qwen-code@$QWEN_VERSION"
	program qwen "$dir/node/node_modules/node-$platform/bin/node" \
		"$dir/qwen/node_modules/@qwen-code/qwen-code/cli-entry.js"
	has qwen $QWEN_VERSION || die "qwen $QWEN_VERSION does not run"
fi

# The agents run as other users and without a right to write here.
chmod -R a+rX "$dir"
echo "install-agents: node $NODE_VERSION, opencode $OPENCODE_VERSION, qwen $QWEN_VERSION are in $dir"
