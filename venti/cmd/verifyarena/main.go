// Verifyarena checks the seals of arenas, see venti-backup(8).
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/venti"
	"strata/venti/internal/arena"
	"strata/venti/internal/ventitool"
)

func main() { newCommand().Main() }

func newCommand() *command.Command {
	var verbose bool
	var pause int
	return &command.Command{
		Name: "venti/verifyarena", Usage: "[-v] [-s ms] [arenapart [arena...]]",
		Doc: `Computes the SHA-1 of each sealed arena of a partition, or of those named, and
compares it with the seal. Without a partition it reads one arena from standard
input, as venti/rdarena writes it. It prints a line for each arena that is not
sealed, not summed yet or damaged, and exits 1 if one is damaged. A server may
run meanwhile.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.BoolVarP(&verbose, "verbose", "v", false, "print a line for the arenas that are right too")
			fs.IntVarP(&pause, "sleep", "s", 0, "wait so many `milliseconds` between one piece of an arena and the next")
			fs.StringP("block", "b", "", "does nothing: the `size` of a piece is a MiB")
			fs.MarkHidden("block")
		},
		Run: func(ctx context.Context, io command.IO) error {
			v := &verifier{io: io, verbose: verbose, pause: time.Duration(pause) * time.Millisecond}
			if len(io.Args) == 0 {
				return v.stdin(ctx)
			}
			return v.partition(ctx, io.Args[0], io.Args[1:])
		},
	}
}

type verifier struct {
	io      command.IO
	verbose bool
	pause   time.Duration
	faults  int
}

func (v *verifier) say(format string, args ...any) {
	fmt.Fprintf(v.io.Stderr, ventitool.Stamp(time.Now())+" "+format+"\n", args...)
}

func (v *verifier) partition(ctx context.Context, file string, names []string) error {
	as, err := ventitool.Open(file, ventitool.Live, names)
	if err != nil {
		return err
	}
	defer as.File.Close()
	if v.verbose && as.Part != nil {
		fmt.Fprint(v.io.Stderr, ventitool.Stamp(time.Now())+" ")
		ventitool.WriteHead(v.io.Stderr, as.Part)
	}
	for _, err := range as.Bad {
		v.say("%v", err)
		v.faults++
	}
	for _, a := range as.List {
		if err := v.arena(ctx, a); err != nil {
			return err
		}
	}
	return v.result(file)
}

// stdin verifies an arena that comes through a pipe.
func (v *verifier) stdin(ctx context.Context) error {
	as, err := ventitool.Spool(v.io.Stdin)
	if err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	defer as.File.Close()
	if as.Part != nil {
		return errors.New("standard input is a partition: name it as an argument")
	}
	if err := v.arena(ctx, as.List[0]); err != nil {
		return err
	}
	return v.result("standard input")
}

func (v *verifier) result(file string) error {
	if v.faults > 0 {
		return fmt.Errorf("%s: %d damaged arenas", file, v.faults)
	}
	return nil
}

func (v *verifier) arena(ctx context.Context, a *arena.Arena) error {
	if v.verbose {
		v.say("verify %s", a.Name)
	}
	t, err := a.ReadTrailer()
	if err != nil {
		return err
	}
	if !t.Disk.Sealed || t.Seal.IsZero() {
		if t.Mem.Used > 0 || v.verbose {
			v.say("%s: unsealed %s bytes", a.Name, command.Commas(t.Mem.Used))
		}
		return nil
	}
	got, err := a.SumSlowly(ctx, v.wait)
	switch {
	case err != nil:
		return err
	case got != t.Seal:
		v.faults++
		v.say("%s: mismatch checksum - found=%v calculated=%v", a.Name, t.Seal, venti.Score(got))
	case v.verbose:
		v.say("%s: verified score", a.Name)
	}
	return nil
}

// wait waits between two pieces of an arena.
func (v *verifier) wait(ctx context.Context, _ int) error {
	if v.pause <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(v.pause):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
