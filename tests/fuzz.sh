#!/bin/sh
# Runs every fuzz target for the time given, one after the other. Cases that
# fail are left in the package's testdata/fuzz, where go test finds them again.
set -eu
time=${1:-30s}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# fuzz runs one target. The fuzzer of Go 1.26 sometimes fails with its own
# deadline when its time is up; without a failing input that is no failure.
fuzz() {
	echo "== $1 $2"
	if go test -run '^$' -fuzz "^$2\$" -fuzztime "$time" -fuzzminimizetime 10s "$1" </dev/null >"$log" 2>&1; then
		tail -n 2 "$log"
		return
	fi
	cat "$log"
	grep -q 'context deadline exceeded' "$log" && ! grep -q 'Failing input' "$log"
}

grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u | while read -r dir; do
	go test -list '^Fuzz' "$dir" | grep '^Fuzz' | while read -r target; do
		fuzz "$dir" "$target" || exit 1
	done || exit 1
done
