#!/bin/sh
# Runs every fuzz target for the time given, one after the other. Cases that
# fail are left in the package's testdata/fuzz, where go test finds them again.
set -eu
time=${1:-30s}
grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u | while read -r dir; do
	go test -list '^Fuzz' "$dir" | grep '^Fuzz' | while read -r target; do
		echo "== $dir $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10s "$dir" </dev/null
	done
done
