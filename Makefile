# Strata. Every target here stands in mkfile too, for mk(1).
#
#	make            the commands, in bin/
#	make demo       the main job from nothing: two real disks in, and one back over 9P
#	make test       everything that must pass, in minutes
#	make race       the same under the race detector
#	make trial      the longer trials: crash, kill -9, fuzzing (TRIAL=10 is ten times as long)
#	make fuzz       every fuzz target, FUZZTIME each
#	make bench      speed and memory, as ratios to this machine's own limits
#	make paper      the experiments of the paper that vdisk goes back to, on Debian's disks (15 GB)
#	make run        the suite on ./run, until interrupted
#	make deps       the Debian packages that the demo and the tests use

FUZZTIME = 30s
TRIAL = 1
RUN = run

all:
	sh tests/build.sh

test: all
	sh tests/deps.sh warn
	go vet ./...
	go test -count=1 -timeout 14m ./...

race: all
	go test -count=1 -race -shuffle=on -timeout 30m ./...

trial: all
	sh tests/trial.sh $(TRIAL)

fuzz:
	sh tests/fuzz.sh $(FUZZTIME)

bench: all
	go test -run "^$$" -bench . -benchtime 3x -timeout 60m ./tests/bench

paper:
	sh tests/bench/paper/run.sh

demo: all
	sh tests/deps.sh need
	bin/strata demo

run: all
	bin/strata up $(RUN)

deps:
	sh tests/deps.sh install

clean:
	rm -rf bin demo paper

.PHONY: all test race trial fuzz bench paper demo run deps clean
