// Cmparenas compares the arenas of two partitions, see venti-backup(8).
package main

import (
	"bytes"
	"context"
	"fmt"
	stdio "io"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/internal/disk"
	"strata/venti/internal/arena"
	"strata/venti/internal/ventitool"
)

func main() { newCommand().Main() }

func newCommand() *command.Command {
	var verbose bool
	return &command.Command{
		Name: "venti/cmparenas", Usage: "[-v] arenapart1 arenapart2 [arena...]",
		Doc: `Compares the arenas of two partitions, or those named: sealed ones byte for
byte, others as far as the index has their clumps. It prints a line for each
arena that differs, and exits 1 if there is one. Servers may run meanwhile.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.BoolVarP(&verbose, "verbose", "v", false, "print a line for the arenas that are equal too")
			fs.StringP("block", "b", "", "does nothing")
			fs.StringP("sleep", "s", "", "does nothing")
			fs.MarkHidden("block")
			fs.MarkHidden("sleep")
		},
		Run: func(ctx context.Context, io command.IO) error {
			if len(io.Args) < 2 {
				return command.ErrUsage
			}
			return run(ctx, io, verbose)
		},
	}
}

func run(ctx context.Context, io command.IO, verbose bool) error {
	var as [2]*ventitool.Arenas
	for i := range as {
		var err error
		if as[i], err = ventitool.Open(io.Args[i], ventitool.Live, io.Args[2:]); err != nil {
			return err
		}
		defer as[i].File.Close()
		if as[i].Part != nil {
			ventitool.WriteHead(io.Stderr, as[i].Part)
		}
		if len(as[i].Bad) > 0 {
			return fmt.Errorf("%s: %w", io.Args[i], as[i].Bad[0])
		}
	}
	byName := make(map[string]*arena.Arena)
	for _, b := range as[1].List {
		byName[b.Name] = b
	}
	differ := 0
	for _, a := range as[0].List {
		b := byName[a.Name]
		delete(byName, a.Name)
		why := "is not in the second"
		if b != nil {
			var err error
			if why, err = compare(ctx, as[0].File, as[1].File, a, b); err != nil {
				return err
			}
		}
		switch {
		case why != "":
			differ++
			fmt.Fprintf(io.Stdout, "%s: %s\n", a.Name, why)
		case verbose:
			fmt.Fprintf(io.Stdout, "%s: equal\n", a.Name)
		}
	}
	for _, b := range as[1].List {
		if byName[b.Name] != nil {
			differ++
			fmt.Fprintf(io.Stdout, "%s: is not in the first\n", b.Name)
		}
	}
	if differ > 0 {
		return fmt.Errorf("%d arenas differ", differ)
	}
	return nil
}

// compare returns how two arenas differ, or "".
func compare(ctx context.Context, f, g disk.File, a, b *arena.Arena) (string, error) {
	if a.Stop-a.Start != b.Stop-b.Start || a.BlockSize != b.BlockSize {
		return fmt.Sprintf("sizes are %d and %d, blocks %d and %d", a.Stop-a.Start, b.Stop-b.Start, a.BlockSize, b.BlockSize), nil
	}
	t, err := a.ReadTrailer()
	if err != nil {
		return "", err
	}
	u, err := b.ReadTrailer()
	if err != nil {
		return "", err
	}
	if t.Mem.Clumps == 0 && u.Mem.Clumps == 0 {
		return "", nil
	}
	if a.ClumpMagic != b.ClumpMagic || a.Version != b.Version {
		return fmt.Sprintf("clumps are marked with %08x and %08x", a.ClumpMagic, b.ClumpMagic), nil
	}
	if t.Disk.End() != u.Disk.End() || t.Seal != u.Seal && !t.Seal.IsZero() && !u.Seal.IsZero() {
		return fmt.Sprintf("clumps are %d and %d, used bytes %d and %d, seals %v and %v",
			t.Disk.Clumps, u.Disk.Clumps, t.Disk.Used, u.Disk.Used, t.Seal, u.Seal), nil
	}
	size := a.Stop - a.Start
	ranges := [][2]int64{{0, size}}
	if t.Seal.IsZero() || u.Seal.IsZero() {
		block := int64(a.BlockSize)
		ranges = [][2]int64{{0, block + t.Disk.Used}}
		// The entries, without the unused bytes of their blocks.
		if at, err := compareInfos(ctx, a, b, int(t.Disk.Clumps)); at >= 0 || err != nil {
			return fmt.Sprintf("directory entries of clump %d differ", at), err
		}
	}
	for _, r := range ranges {
		at, err := compareBytes(ctx, stdio.NewSectionReader(f, a.Start+r[0], r[1]-r[0]), stdio.NewSectionReader(g, b.Start+r[0], r[1]-r[0]))
		if at >= 0 || err != nil {
			return fmt.Sprintf("bytes differ at %d and %d", a.Start+r[0]+at, b.Start+r[0]+at), err
		}
	}
	return "", nil
}

// compareInfos returns the first clump whose entries differ, or -1.
func compareInfos(ctx context.Context, a, b *arena.Arena, n int) (int, error) {
	x, y := make([]arena.ClumpInfo, min(n, 8192)), make([]arena.ClumpInfo, min(n, 8192))
	for first := 0; first < n; first += len(x) {
		x, y = x[:min(len(x), n-first)], y[:min(len(y), n-first)]
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if err := a.ReadInfos(x, first); err != nil {
			return 0, err
		}
		if err := b.ReadInfos(y, first); err != nil {
			return 0, err
		}
		for i := range x {
			if x[i] != y[i] {
				return first + i, nil
			}
		}
	}
	return -1, nil
}

// compareBytes returns the first place where two readers of one length
// differ, or -1.
func compareBytes(ctx context.Context, f, g *stdio.SectionReader) (int64, error) {
	a, b := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); off < f.Size(); off += int64(len(a)) {
		n := min(int64(len(a)), f.Size()-off)
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if err := disk.ReadFull(f, a[:n], off); err != nil {
			return 0, err
		}
		if err := disk.ReadFull(g, b[:n], off); err != nil {
			return 0, err
		}
		if !bytes.Equal(a[:n], b[:n]) {
			i := int64(0)
			for a[i] == b[i] {
				i++
			}
			return off + i, nil
		}
	}
	return -1, nil
}
