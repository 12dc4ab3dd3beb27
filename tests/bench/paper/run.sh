#!/bin/sh
# Prints the tables of the paper: see doc.go. The disks that it makes are in ./paper,
# where an interrupted run finds them again, and go when all is done.
set -eu
STRATA_PAPER=$PWD/paper go test -count=1 -v -timeout 3h -run '^TestPaper$' ./tests/bench/paper
rm -rf paper
