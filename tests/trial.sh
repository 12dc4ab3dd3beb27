#!/bin/sh
# The longer trials: power cuts on the simulated disk, kill -9 of a real
# server, every fuzz target. $1 multiplies their length.
set -eu
times=${1:-1}
STRATA_TRIAL=$times go test -count=1 -timeout 60m -v ./venti/store ./tests/crash
sh tests/fuzz.sh "$((times * 20))s"
