#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# Installs the real coding agents of the test suite from npm, at pinned versions:
#
#   test/install-agents.sh [DIRECTORY]        (default: .build/agents in the repository)
#
# Afterwards DIRECTORY/bin has node and the agents, each of which answered --version as expected. A second run finds
# that out and changes nothing. A node of its own comes first: under an old node npm doesn't fail, it silently takes an
# older agent.
#
# An agent that can't be had does not stop the others: its reason is in DIRECTORY/bin/NAME.missing, and tests skip it.
# Without node, opencode and qwen the exit code is 1.
set -euo pipefail

NODE_VERSION=24.9.0

# name, npm package, its version, version the program tells, its file (in node_modules)
AGENTS='
opencode          opencode-ai                              1.18.33  1.18.33  opencode-ai/bin/opencode.exe
qwen              @qwen-code/qwen-code                     0.24.4   0.24.4   @qwen-code/qwen-code/cli-entry.js
claude            @anthropic-ai/claude-code                2.1.330  2.1.330  @anthropic-ai/claude-code/bin/claude.exe
claude-agent-acp  @agentclientprotocol/claude-agent-acp    0.101.0  0.101.0  @agentclientprotocol/claude-agent-acp/dist/index.js
pi                @earendil-works/pi-coding-agent          0.87.1   0.87.1   @earendil-works/pi-coding-agent/dist/bundle/cli.js
codex-acp         @agentclientprotocol/codex-acp           2.6.0    2.6.0    @agentclientprotocol/codex-acp/dist/index.js
codex             @agentclientprotocol/codex-acp           2.6.0    0.166.0  @openai/codex/bin/codex.js
gemini            @google/gemini-cli                       0.61.0   0.61.0   @google/gemini-cli/bundle/gemini.js
goose             @aaif/goose-binary-PLATFORM              0.20.1   1.34.0   @aaif/goose-binary-PLATFORM/bin/goose
'

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
	answer=$(HOME=$home timeout 60 "$dir/bin/$1" --version 2> /dev/null < /dev/null | grep -oE '[0-9]+(\.[0-9]+)+' | head -n 1) || true
	rm -rf "$home"
	[ "$answer" = "$2" ]
}

# npm_install SUBDIRECTORY PACKAGE
npm_install()
{
	echo "install-agents: $2"
	mkdir -p "$dir/$1"
	(cd "$dir/$1" && npm install --prefix . --no-fund --no-audit --loglevel=error "$2" >&2)
}

# program NAME COMMAND...: DIRECTORY/bin/NAME runs COMMAND (no symbolic links: some programs look for their neighbours,
# and need our node whatever PATH says)
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

# install NAME PACKAGE VERSION TELLS FILE: what is wrong, or nothing
install()
{
	local name=$1 package=$2 version=$3 tells=$4 file=$5 sub
	sub=${package##*/}			# codex comes with codex-acp
	npm_install "$sub" "$package@$version" >&2 || {
		echo "npm could not install $package@$version"
		return
	}
	file=$dir/$sub/node_modules/$file
	case $file in
		*.js) program "$name" "$node" "$file" ;;
		*) program "$name" "$file" ;;
	esac
	if [ "$name" = opencode ] && ! has opencode "$tells"; then
		# An npm that runs no install scripts leaves a placeholder in place of the program.
		(cd "$dir/$sub/node_modules/$package" && "$node" ./postinstall.mjs >&2) || true
	fi
	has "$name" "$tells" || echo "$name of $package@$version does not run, or is not $tells"
}

case $(uname -s)-$(uname -m) in
	Linux-x86_64) platform=linux-x64 ;;
	Linux-aarch64) platform=linux-arm64 ;;
	*) die "no agents for $(uname -s) on $(uname -m)" ;;
esac
node=$dir/node/node_modules/node-$platform/bin/node

changed=
if ! has node $NODE_VERSION; then
	changed=1
	command -v npm > /dev/null || die "npm is missing (Debian: apt-get install npm)"
	npm_install node "node-$platform@$NODE_VERSION" || die "npm could not install node $NODE_VERSION"
	program node "$node"
	has node $NODE_VERSION || die "node $NODE_VERSION does not run"
fi

# From here on npm itself and every install script run under that node.
export PATH=${node%/node}:$PATH

there="node $NODE_VERSION"
failed=
while read -r name package version tells file; do
	[ -n "$name" ] || continue
	if has "$name" "$tells"; then
		problem=
	elif command -v npm > /dev/null; then
		changed=1
		problem=$(install "$name" "${package/PLATFORM/$platform}" "$version" "$tells" "${file/PLATFORM/$platform}" < /dev/null)
	else
		problem="npm is missing (Debian: apt-get install npm)"
	fi
	if [ -z "$problem" ]; then
		rm -f "$dir/bin/$name.missing"
		there="$there, $name $tells"
	else
		echo "install-agents: $problem" >&2
		rm -f "$dir/bin/$name"
		echo "$problem" > "$dir/bin/$name.missing"
		case $name in
			opencode | qwen) failed=1 ;;
		esac
	fi
done <<< "$AGENTS"

# The agents run as other users and without a right to write here.
[ -z "$changed" ] || chmod -R a+rX "$dir"
echo "install-agents: $there are in $dir"
[ -z "$failed" ]
