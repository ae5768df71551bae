#!/bin/sh
# SPDX-License-Identifier: PostgreSQL
#
# worktree_diff.sh [FILES...]
#
# Roles "worktree" and "diff" beside "git worktree add" and "git diff", on
# repositories of 100, 5000 and 50000 files, in one run: milliseconds, the
# median of RUNS (5).  The diff is of a worktree with 10 edited and 5 new
# files, right after the checkout and again.  git's side of it is "git add -A"
# to an index of its own and "git diff --cached": with untracked files, as ours.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
runner=${RUNNER:-$(${PG_CONFIG:-pg_config} --pkglibdir)/boocoder-runner}
runs=${RUNS:-5}
base=$(mktemp -d)
trap 'rm -rf "$base"' EXIT
trap 'exit 1' INT TERM HUP
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null

call() # order; milliseconds into $ms, result into $base/result
{
	echo "$1" | "$here/runner_call.pl" --time "$runner" > "$base/out"
	ms=$(sed -n 1p "$base/out")
	sed 1d "$base/out" > "$base/result"
	grep -q '"ok": *true' "$base/result" || { cut -c1-500 "$base/result" >&2; exit 1; }
}

field() { sed -n 's/.*"'"$1"'": *"\([^"]*\)".*/\1/p' "$base/result"; }

timed() # command; milliseconds into $ms
{
	ms=$(perl -MTime::HiRes=time -e '$t = time; system(@ARGV) == 0 or die; printf "%.1f", (time - $t) * 1000' \
		sh -c "$1")
}

median() { sort -n "$1" | sed -n "$(( ($(wc -l < "$1") + 1) / 2 ))p"; }

edit() # worktree
{
	for n in 1 2 3 4 5 6 7 8 9 10; do echo edited >> "$1/d$n/f1"; done
	for n in 1 2 3 4 5; do echo new > "$1/new$n"; done
}

printf '%-7s %13s %13s | %10s %10s %10s %10s\n' files worktree 'git worktree' diff 'diff again' 'git diff' 'git again'
for files in ${*:-100 5000 50000}
do
	p=$base/p$files
	r=$base/r$files
	git init -q -b main "$p"
	perl -e 'my ($p, $n) = @ARGV; my $per = int($n / 100) || 1; for my $d (1 .. 100) { mkdir "$p/d$d";
		for my $f (1 .. $per) { open my $o, ">", "$p/d$d/f$f"; print $o map "line $_ of $d/$f\n", 1 .. 40 } }' "$p" "$files"
	git -C "$p" add -A
	git -C "$p" -c user.name=b -c user.email=b@example.org commit -q -m base
	head=$(git -C "$p" rev-parse HEAD)
	rm -f "$base"/t.*
	i=0
	while [ $i -lt "$runs" ]
	do
		i=$((i + 1))
		w=$r/p/$i
		common='"project":{"id":1,"path":"'$p'"},"worktree":{"id":'$i',"path":"'$w'","branch":"boocoder/'$i'"'
		diff='{"role":"diff",'$common',"diff_base":"'$head'"},"max_bytes":33554432}'
		call '{"role":"worktree",'"$common"',"base_ref":null,"base_commit":null},"root":"'"$r"'","forbidden":[]}'
		echo "$ms" >> "$base/t.worktree"
		edit "$w"
		call "$diff"
		echo "$ms" >> "$base/t.diff"
		tree=$(field tree)
		call "$diff"
		echo "$ms" >> "$base/t.again"
		timed "git -C $p worktree add -q -b git/$i $base/g$i"
		echo "$ms" >> "$base/t.gitworktree"
		edit "$base/g$i"
		cp "$p/.git/worktrees/g$i/index" "$base/index"
		gitdiff="cd $base/g$i && GIT_INDEX_FILE=$base/index && export GIT_INDEX_FILE && git add -A && git diff --cached --binary HEAD > $base/diff"
		timed "$gitdiff"
		echo "$ms" >> "$base/t.gitdiff"
		timed "$gitdiff"
		echo "$ms" >> "$base/t.gitagain"
		[ "$tree" = "$(cd "$base/g$i" && GIT_INDEX_FILE=$base/index git write-tree)" ] || { echo "trees differ" >&2; exit 1; }
		call '{"role":"remove",'"$common"',"diff_base":"'"$head"'"},"root":"'"$r"'","delete_branch":true}'
		git -C "$p" worktree remove --force "$base/g$i"
	done
	printf '%-7s %13s %13s | %10s %10s %10s %10s\n' "$files" "$(median "$base/t.worktree")" \
		"$(median "$base/t.gitworktree")" "$(median "$base/t.diff")" "$(median "$base/t.again")" \
		"$(median "$base/t.gitdiff")" "$(median "$base/t.gitagain")"
done
