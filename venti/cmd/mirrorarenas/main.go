// Mirrorarenas copies an arena partition to another, as far as that has not
// been done before, see venti-backup(8).
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/internal/disk"
	"strata/venti"
	"strata/venti/internal/arena"
	"strata/venti/internal/ventitool"
)

func main() { newCommand().Main() }

// options are the flags.
type options struct {
	trust, force, verbose bool
}

func newCommand() *command.Command {
	var o options
	return &command.Command{
		Name: "venti/mirrorarenas", Usage: "[-sv] [-F] src dst [ranges]",
		Doc: `Copies the arenas of partition src, or those in ranges such as 3-7,9,12-, to
partition dst, which fmtarenas has given the same arenas. It copies what dst
lacks, as far as the clumps are in src's index: a server may be using src.
Sealed arenas become equal to the byte, and are checked against their seal in
src and in dst. Killed at any moment, it goes on where it was when it is run
again.

An arena of dst that is no older copy of src's is left alone, and the status
is 1.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.BoolVarP(&o.trust, "no-sum", "s", false, "do not check sealed arenas against their seals")
			fs.BoolVarP(&o.verbose, "verbose", "v", false, "say what is copied, and of arenas that were equal that they are")
			fs.BoolVarP(&o.force, "force", "F", false, "copy over arenas of dst that are something else")
		},
		Run: func(ctx context.Context, io command.IO) error { return run(ctx, io, o) },
	}
}

func run(ctx context.Context, io command.IO, o options) error {
	if len(io.Args) != 2 && len(io.Args) != 3 {
		return command.ErrUsage
	}
	ranges := ""
	if len(io.Args) == 3 {
		ranges = io.Args[2]
	}
	chosen, err := ventitool.ParseRanges(ranges)
	if err != nil {
		return command.Usagef("%v", err)
	}
	src, err := openPartition(io.Args[0], ventitool.Live)
	if err != nil {
		return err
	}
	defer src.File.Close()
	dst, err := openPartition(io.Args[1], disk.Options{})
	if err != nil {
		return err
	}
	defer dst.File.Close()
	if err := sameGeometry(src.Part, dst.Part); err != nil {
		return err
	}
	m := &mirror{io: io, o: o}
	for i := range src.Part.Arenas {
		if chosen(i) {
			if err := m.arena(ctx, src.Part, dst.Part, i); err != nil {
				return err
			}
		}
	}
	m.flush()
	if m.faults > 0 {
		return fmt.Errorf("%d arenas could not be mirrored", m.faults)
	}
	return nil
}

func openPartition(file string, o disk.Options) (*ventitool.Arenas, error) {
	as, err := ventitool.Open(file, o, nil)
	if err == nil && as.Part == nil {
		as.File.Close()
		return nil, fmt.Errorf("%s: it is one arena, no partition", file)
	}
	return as, err
}

func sameGeometry(a, b *arena.Partition) error {
	if a.BlockSize != b.BlockSize || a.ArenaBase != b.ArenaBase || len(a.Arenas) != len(b.Arenas) {
		return fmt.Errorf("partitions differ: blocks of %d and %d bytes, arenas from %d and %d on, %d and %d of them",
			a.BlockSize, b.BlockSize, a.ArenaBase, b.ArenaBase, len(a.Arenas), len(b.Arenas))
	}
	for i := range a.Arenas {
		if a.Arenas[i] != b.Arenas[i] {
			return fmt.Errorf("partitions differ: arena %d is %v and %v", i, a.Arenas[i], b.Arenas[i])
		}
	}
	return nil
}

// A mirror gathers arenas in the same state, for one line about them.
type mirror struct {
	io          command.IO
	o           options
	first, last string
	what        string // "mirrored sealed", "mirrored" or "empty"
	faults      int
}

func (m *mirror) say(format string, args ...any) {
	fmt.Fprintf(m.io.Stdout, ventitool.Stamp(time.Now())+" "+format+"\n", args...)
}

func (m *mirror) flush() {
	if m.what != "" {
		m.say("%s-%s %s", m.first, m.last, m.what)
	}
	m.what = ""
}

func (m *mirror) arena(ctx context.Context, src, dst *arena.Partition, i int) error {
	a, err := src.OpenArena(i)
	if err != nil {
		return m.fault(err)
	}
	b, err := dst.OpenArena(i)
	if err != nil {
		return m.fault(fmt.Errorf("destination: %w", err))
	}
	o := arena.MirrorOptions{Trust: m.o.trust, Force: m.o.force}
	announced := false
	announce := func() {
		if !announced {
			m.flush()
			m.say("%s (%s-%s)", a.Name, command.Commas(a.Start), command.Commas(a.Stop))
			announced = true
		}
	}
	o.Copying = func(start, stop int64, what string) {
		announce()
		if m.o.verbose {
			m.say("  copy %s-%s %s", command.Commas(start), command.Commas(stop), what)
		}
	}
	done, err := arena.Mirror(ctx, a, b, o)
	if err != nil {
		return m.fault(err)
	}
	what := "empty"
	switch done {
	case arena.MirrorSealed:
		what = "mirrored sealed"
	case arena.MirrorCopied:
		what = "mirrored"
		announce()
		t, err := b.ReadTrailer()
		if err != nil {
			return m.fault(err)
		}
		m.say("%s: %s used mirrored", a.Name, command.Commas(t.Disk.Used))
	}
	if what != m.what {
		m.flush()
		m.first, m.what = a.Name, what
	}
	m.last = a.Name
	return nil
}

// fault goes on with the next arena, if the error is about this one.
func (m *mirror) fault(err error) error {
	if !errors.Is(err, arena.ErrFormat) && !errors.Is(err, arena.ErrMirror) && !errors.Is(err, venti.ErrCorrupt) {
		return err
	}
	m.flush()
	m.say("%v", err)
	m.faults++
	return nil
}
