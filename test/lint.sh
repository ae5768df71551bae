#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# Checks of the source text that need no build. Prints TAP; exits 1 when one fails.
#
#   test/lint.sh            from anywhere
set -uo pipefail
cd "$(dirname "$0")/.."

number=0
failed=0

# check WHAT FINDINGS: passes when there are no findings
check()
{
	number=$((number + 1))
	if [ -z "$2" ]; then
		echo "ok $number - $1"
	else
		echo "not ok $number - $1"
		echo "$2" | head -n 20 | sed 's/^/#   /'
		failed=$((failed + 1))
	fi
}

# Files of ours, without what is built.
files()
{
	find . -path ./.git -prune -o -path ./.build -prune -o -path '*/build' -prune -o -path ./tmp_check -prune \
		-o -type f "$@" -print | sort
}

sources=$(files \( -name '*.c' -o -name '*.h' \))
scripts=$(files -name '*.sh'; ls .ci/run 2> /dev/null)
perl=$(files \( -name '*.pl' -o -name '*.pm' \))

check 'every C, SQL, shell and Perl file has its SPDX line' \
	"$(for f in $sources $scripts $perl $(files -path './sql/[0-9]*.sql'); do
		head -n 5 "$f" | grep -q 'SPDX-License-Identifier: PostgreSQL' || echo "$f"; done)"
check 'no C file is longer than 800 lines' \
	"$(for f in $sources; do [ "$(wc -l < "$f")" -le 800 ] || echo "$f: $(wc -l < "$f")"; done)"
check 'no TODO or FIXME is left' \
	"$(grep -nE '\b(TODO|FIXME|XXX)\b' $sources $scripts $perl $(files -name '*.sql') | grep -v '^./test/lint.sh')"
check 'no trailing blanks in code' "$(grep -nE '[[:blank:]]+$' $sources $scripts $perl $(files -path './sql/[0-9]*.sql'))"
check 'only the extension includes the headers of the server' \
	"$(grep -lE '#include "(postgres|postgres_fe|c|fmgr)\.h"' $(files -path './src/*' \( -name '*.c' -o -name '*.h' \)) |
		grep -v '^./src/extension/')"
check 'the extension includes no library of the runner' \
	"$(grep -nE '#include <(git2|jansson|curl)' $(files -path './src/extension/*') $(files -path './src/common/*'))"
check 'shell scripts parse' "$(for f in $scripts; do bash -n "$f" 2>&1; done)"
check 'programs start with their interpreter and may be run' \
	"$(for f in $(files -path './test/*' -name '*.sh' ! -name common.sh) $(files -path './test/agents/*' ! -name '*.md'); do
		head -c 2 "$f" | grep -q '#!' && [ -x "$f" ] || echo "$f"; done)"

version=$(sed -n "s/^default_version *= *'\(.*\)'/\1/p" boocoder.control)
check 'boocoder.control, META.json and the documents name one version' \
	"$(grep -q "\"version\": *\"$version\"" META.json || echo "META.json: not $version"
	perl -MJSON::PP -0777 -e 'my $m = JSON::PP->new->decode(<>); for (qw(name abstract version maintainer license provides meta-spec)) {
		print "META.json lacks $_\n" unless $m->{$_} }' META.json 2>&1)"
check 'the SQL scripts take over no object of others' \
	"$(grep -nE 'CREATE OR REPLACE|\bIF NOT EXISTS +[^( ]' $(files -path './sql/[0-9]*.sql') | grep -vE ':\s*--|pg_roles|DO \$' )"
check 'documents link only to files that exist' \
	"$(for f in $(files -name '*.md'); do
		grep -oE '\]\([^)#:]+[)#]' "$f" | sed 's/^](//; s/[)#]$//' |
			while read -r link; do [ -e "$(dirname "$f")/$link" ] || echo "$f: $link"; done; done)"

echo "1..$number"
[ $failed = 0 ]
