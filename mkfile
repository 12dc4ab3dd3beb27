# Strata, for mk(1): the same targets as Makefile, which describes them.

FUZZTIME=30s
TRIAL=1
RUN=run

all:V:
	sh tests/build.sh

test:V: all
	sh tests/deps.sh warn
	go vet ./...
	go test -count=1 -timeout 14m ./...

race:V: all
	go test -count=1 -race -shuffle=on -timeout 30m ./...

trial:V: all
	sh tests/trial.sh $TRIAL

fuzz:V:
	sh tests/fuzz.sh $FUZZTIME

bench:V: all
	go test -run '^$' -bench . -benchtime 3x -timeout 60m ./tests/bench

paper:V:
	sh tests/bench/paper/run.sh

demo:V: all
	sh tests/deps.sh need
	bin/strata demo

run:V: all
	bin/strata up $RUN

deps:V:
	sh tests/deps.sh install

clean:V:
	rm -rf bin demo paper
