#!/bin/sh
# Builds every command into bin/, laid out as in Plan 9: what a noun owns lies
# in its folder (bin/venti/read), what stands for itself does not (bin/vdisk).
set -eu
mkdir -p bin/venti
go build -o bin/venti/ ./venti/cmd/...
go build -o bin/ ./vac/cmd/... ./vdisk/cmd/... ./tools/...
