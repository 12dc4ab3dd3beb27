#!/bin/sh
# The longer trials: power cuts on the simulated disk, an index of a hundred
# million entries (6 GB of disk), a directory of 100,000 files, half a million
# operations on fossil beside a model, kill -9 of a real venti, a real fossil and
# live disks under their peers, a thousand snapshots of one, guests with Debian on
# them by each way there is, every fuzz target. $1 multiplies their length; from 2
# on mounts do more than in the tests, too, with 16 a fossil is killed 200 times, and with 20 a million
# blocks go through servers that are killed.
set -eu
times=${1:-1}
STRATA_TRIAL=$((times * 8)) go test -count=1 -timeout 60m -v ./venti/store
STRATA_ENTRIES=100000000 go test -count=1 -timeout 30m -v -run '^TestManyEntries$' ./venti/store
STRATA_TRIAL=$times go test -count=1 -timeout 90m -v ./fossil/...
STRATA_TRIAL=$times go test -count=1 -timeout 30m -v -run '^TestManyFiles$' ./vac
STRATA_TRIAL=$times go test -count=1 -timeout 30m -v -run 'Vac' ./tests/interop
STRATA_TRIAL=$times go test -count=1 -timeout 60m -v ./tests/crash
STRATA_TRIAL=$times go test -count=1 -timeout 30m -v -run '^TestManySnapshots$' ./vdisk/live
STRATA_TRIAL=$times go test -count=1 -timeout 60m -v ./tests/peers ./tests/block
guests='Test9pfuse|TestV9fs|TestRun' # over NBD is in the tests
[ "$times" -lt 2 ] || guests=.
STRATA_TRIAL=$times go test -count=1 -timeout 60m -v -run "$guests" ./tests/debian ./tests/qemu
[ "$times" -lt 2 ] || STRATA_TRIAL=$times go test -count=1 -timeout 120m -v ./tests/mount
sh tests/fuzz.sh "$((times * 6))s"
