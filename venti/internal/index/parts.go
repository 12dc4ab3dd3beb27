package index

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"

	"strata/internal/disk"
	"strata/venti/internal/arena"
	"strata/venti/internal/config"
)

// Parts are the open partitions that a configuration names.
type Parts struct {
	Arenas   []*arena.Arena // of all partitions, in the order of the configuration
	Sections []*Section
	Bloom    disk.File // nil if there is none
	Overflow disk.File // of the index, for OpenOverflow; nil if there is none
	closers  []io.Closer
}

// OpenParts opens and locks the partitions of c. An arena that has no valid
// trailer is an error.
func OpenParts(c *config.Config, o disk.Options) (_ *Parts, err error) {
	p := new(Parts)
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	open := func(name string) (disk.File, error) { // nil with an error
		f, err := disk.Open(name, o)
		if err != nil {
			return nil, c.Blame(name, err)
		}
		p.closers = append(p.closers, f)
		return f, nil
	}
	for _, name := range c.Arenas {
		f, err := open(name)
		if err != nil {
			return nil, err
		}
		part, err := arena.OpenPartition(f)
		if err != nil {
			return nil, c.Blame(name, fmt.Errorf("%s: %w", name, err))
		}
		for i := range part.Arenas {
			a, err := part.OpenArena(i)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			p.Arenas = append(p.Arenas, a)
		}
	}
	for _, name := range c.Sections {
		f, err := open(name)
		if err != nil {
			return nil, err
		}
		s, err := OpenSection(f)
		if err != nil {
			return nil, c.Blame(name, fmt.Errorf("%s: %w", name, err))
		}
		p.Sections = append(p.Sections, s)
	}
	if c.Bloom != "" {
		if p.Bloom, err = open(c.Bloom); err != nil {
			return nil, err
		}
	}
	if c.Overflow != "" {
		if !o.ReadOnly {
			if err := CreateOverflow(c.Overflow, p.Sections); err != nil {
				return nil, err
			}
		}
		// One that is not there has no entries.
		if p.Overflow, err = open(c.Overflow); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return p, nil
}

// OpenIndex opens the index of c in its partitions, with its overflow.
func (p *Parts) OpenIndex(c *config.Config) (*Index, error) {
	ix, err := Open(c.Index, p.Sections, MapArenas(p.Arenas))
	if err == nil && p.Overflow != nil {
		err = ix.OpenOverflow(p.Overflow)
	}
	return ix, err
}

// CreateOverflow makes the file for the overflow of an index of these sections
// if it is not there, and makes it longer if it is too short for them. It does
// nothing for sections that are part of no index yet.
func CreateOverflow(name string, sections []*Section) error {
	if len(sections) == 0 || sections[len(sections)-1].Stop == 0 {
		return nil
	}
	size := OverflowSize(sections)
	fi, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = disk.Create(name, size)
	case err == nil && fi.Mode().IsRegular() && fi.Size() < size:
		err = os.Truncate(name, size)
	}
	if err != nil {
		return fmt.Errorf("overflow: %w", err)
	}
	return nil
}

// Close closes all partitions.
func (p *Parts) Close() error {
	var first error
	for _, c := range p.closers {
		if err := c.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// MapArenas returns what Format, Append and Open want to know of the arenas.
func MapArenas(arenas []*arena.Arena) []Arena {
	list := make([]Arena, len(arenas))
	for i, a := range arenas {
		list[i] = Arena{a.Name, a.Size()}
	}
	return list
}

// infosAtOnce is how many entries of a directory are in memory at a time.
const infosAtOnce = 8192

// ArenaSource returns the entries of all clumps in the directories of those
// arenas that are part of the index, as far as their trailers count them.
// Clumps that are marked corrupt have none.
func (ix *Index) ArenaSource(arenas []*arena.Arena) Source {
	base := make(map[string]uint64)
	for _, m := range ix.Arenas {
		base[m.Name] = m.Start
	}
	return func(ctx context.Context) iter.Seq2[Entry, error] {
		return func(yield func(Entry, error) bool) {
			for _, a := range arenas {
				start, ok := base[a.Name]
				if !ok {
					continue
				}
				more, err := arenaEntries(ctx, a, start, func(e Entry) bool { return yield(e, nil) })
				if err != nil {
					yield(Entry{}, err)
				}
				if err != nil || !more {
					return
				}
			}
		}
	}
}

// arenaEntries calls yield for each clump of a, whose addresses begin at
// base, until it returns false.
func arenaEntries(ctx context.Context, a *arena.Arena, base uint64, yield func(Entry) bool) (more bool, err error) {
	t, err := a.ReadTrailer()
	if err != nil {
		return false, err
	}
	clumps := int(t.Mem.Clumps)
	infos := make([]arena.ClumpInfo, min(clumps, infosAtOnce))
	addr := base
	for i := 0; i < clumps; i += len(infos) {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		infos = infos[:min(len(infos), clumps-i)]
		if err := a.ReadInfos(infos, i); err != nil {
			return false, err
		}
		for j := range infos {
			c := &infos[j]
			if c.Type.Valid() && !yield(Entry{
				Score: c.Score, Addr: addr, Type: c.Type, Size: c.UncSize, Blocks: SectorsOf(int(c.Size)),
			}) {
				return false, nil
			}
			addr += uint64(c.LogSize())
		}
	}
	return true, nil
}

// Pending returns for Check what tells the entries of clumps that the
// trailers do not note as indexed yet, and the number of all clumps.
func (ix *Index) Pending(arenas []*arena.Arena) (pending func(*Entry) bool, count int64, err error) {
	indexed := make([]uint64, len(ix.Arenas)) // bytes of each log that are
	place := make(map[string]int)
	for i, m := range ix.Arenas {
		place[m.Name] = i
	}
	for _, a := range arenas {
		i, ok := place[a.Name]
		if !ok {
			continue
		}
		t, err := a.ReadTrailer()
		if err != nil {
			return nil, 0, err
		}
		indexed[i] = uint64(t.Disk.Used)
		count += int64(t.Mem.Clumps)
	}
	return func(e *Entry) bool {
		i, offset, ok := ix.LookupAddr(e.Addr)
		return ok && offset >= indexed[i]
	}, count, nil
}
