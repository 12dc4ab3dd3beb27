// Package ventitool is what the commands of venti(8) that work on partitions
// have in common: the arenas that their arguments name, and how Plan 9's
// programs describe them.
package ventitool

import (
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"strata/internal/command"
	"strata/internal/disk"
	"strata/venti/internal/arena"
)

// Arenas are those of a partition, or the one in a file that venti/rdarena
// made. The caller closes File.
type Arenas struct {
	File *disk.Partition
	Part *arena.Partition // nil if the file has one arena and nothing else
	List []*arena.Arena   // those that were asked for, in their order
	Bad  []error          // why others of them could not be opened: arena.ErrFormat
}

// Open opens the arenas of a partition that names name, or all; a file in
// which an arena starts at offset 0 is one arena.
func Open(file string, o disk.Options, names []string) (*Arenas, error) {
	f, err := disk.Open(file, o)
	if err != nil {
		return nil, err
	}
	a := &Arenas{File: f}
	if err := a.open(names); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return a, nil
}

// Spool is Open for what comes through a pipe: a copy of it in a temporary file
// that has no name, since the trailer that says what is in an arena comes last.
func Spool(r io.Reader) (*Arenas, error) {
	f, err := os.CreateTemp("", "arena")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	defer os.Remove(f.Name())
	if _, err := io.Copy(f, r); err != nil {
		return nil, err
	}
	return Open(f.Name(), Live, nil)
}

func (as *Arenas) open(names []string) error {
	if a, err := arena.OpenAt(as.File, 0); err == nil {
		if len(names) > 0 && !slices.Equal(names, []string{a.Name}) {
			return fmt.Errorf("it is arena %s alone", a.Name)
		}
		as.List = []*arena.Arena{a}
		return nil
	}
	var err error
	if as.Part, err = arena.OpenPartition(as.File); err != nil {
		return err
	}
	for _, n := range names {
		if !slices.ContainsFunc(as.Part.Arenas, func(e arena.Extent) bool { return e.Name == n }) {
			return fmt.Errorf("no arena %s", n)
		}
	}
	for i, e := range as.Part.Arenas {
		if len(names) > 0 && !slices.Contains(names, e.Name) {
			continue
		}
		a, err := as.Part.OpenArena(i)
		if err != nil {
			as.Bad = append(as.Bad, err)
			continue
		}
		as.List = append(as.List, a)
	}
	return nil
}

// Live are the options for reading a partition that a server may be writing.
var Live = disk.Options{ReadOnly: true, Unlocked: true}

// Stamp returns t as Plan 9's programs begin their messages.
func Stamp(t time.Time) string { return t.Format("2006/0102 15:04:05") }

// WritePartition describes a partition in the words of Plan 9's programs.
func WritePartition(w io.Writer, file string, p *arena.Partition) {
	fmt.Fprintf(w, "arena partition=%s\n\tversion=%d blocksize=%d arenas=%d\n\tsetbase=%d setsize=%d\n",
		file, arena.PartVersion, p.BlockSize, len(p.Arenas), p.ArenaBase-p.TableSize(), p.TableSize())
	for _, e := range p.Arenas {
		fmt.Fprintf(w, "\tarena=%s at [%d,%d)\n", e.Name, e.Start, e.Stop)
	}
}

// WriteHead describes a partition in a line.
func WriteHead(w io.Writer, p *arena.Partition) {
	fmt.Fprintf(w, "# arena part version=%d blocksize=%d arenabase=%d\n", arena.PartVersion, p.BlockSize, p.ArenaBase)
}

// WriteArena describes an arena in the words of Plan 9's programs: the range
// starts at the log, and is as long as the arena.
func WriteArena(w io.Writer, a *arena.Arena, t *arena.Trailer) {
	block := int64(a.BlockSize)
	fmt.Fprintf(w, "arena='%s' [%d,%d)\n\tversion=%d created=%d modified=%d",
		a.Name, a.Base(), a.Stop+block, a.Version, t.CTime, t.WTime)
	if t.Mem.Sealed {
		fmt.Fprint(w, " sealed")
	}
	if !t.Seal.IsZero() {
		fmt.Fprintf(w, "\n\tscore=%v", t.Seal)
	}
	clumps := int64(t.Mem.Clumps)
	fmt.Fprintf(w, "\n\tclumps=%s compressed clumps=%s data=%s compressed data=%s disk storage=%s\n",
		command.Commas(clumps), command.Commas(int64(t.Mem.CClumps)), command.Commas(t.Mem.UncSize),
		command.Commas(t.Mem.Used-clumps*arena.ClumpHeaderSize), command.Commas(t.Mem.Used+clumps*arena.ClumpInfoSize))
}
