package index

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"unsafe"
)

// A BuildConfig says what Build makes an index of. Only Source must be set.
type BuildConfig struct {
	Source Source // has every entry that ought to be there

	// Count is about how many entries Source has, and Memory how many bytes
	// may be used for them at a time; 0 means DefaultCheckMemory. As many times
	// as the one is larger than the other, Source is called.
	Count  int64
	Memory int64

	Sections []*Section // those that are built; nil means all
	Bloom    Filter     // what is built is added to it, if there is one

	// Left, if not nil and there are any, is given the entries that their
	// buckets, and the overflow, have no room for, and Built is called, when all
	// buckets are on stable storage and the sections are not yet part of the index
	// again. Their errors end the build.
	Left  func([]Entry) error
	Built func() error
}

// Unfinished makes the sections, which Open would then refuse, part of the
// index name again if an earlier Build of that index was interrupted.
func Unfinished(name string, sections []*Section) error {
	for _, s := range sections {
		if s.Index != "" {
			continue
		}
		if t, err := s.readTable(); err != nil || t.index != name {
			return fmt.Errorf("section %s is part of no index: see fmtindex", s.Name)
		}
		s.Index = name
	}
	return nil
}

// Build writes every bucket of the index, or of some sections, anew. What was
// in them does not matter. It returns how many entries, each key once, are in
// their buckets or the overflow, and those that there is no room for.
//
// While it works the headers of the sections say that they belong to no index,
// so that no server takes what a crash leaves for all there is: Open refuses
// them, and Build, after Unfinished, can be called again. When it returns nil
// the sections are on stable storage; the filter is Built's to save. Of
// several entries with one key the one with the highest address is kept.
func (ix *Index) Build(ctx context.Context, c BuildConfig) (entries int64, left []Entry, err error) {
	ix.updating.Lock()
	defer ix.updating.Unlock()
	b := &builder{ix: ix, BuildConfig: c}
	if b.Sections == nil {
		b.Sections = ix.Sections
	}
	if err := b.build(ctx); err != nil {
		return 0, nil, fmt.Errorf("index %s: build: %w", ix.Name, err)
	}
	return b.entries, b.left, nil
}

// A builder is a Build under way.
type builder struct {
	ix *Index
	BuildConfig
	want    []Entry // of the pass
	entries int64
	left    []Entry
}

func (b *builder) build(ctx context.Context) error {
	if err := b.name(""); err != nil {
		return err
	}
	if ix := b.ix; ix.over != nil && (len(b.Sections) == len(ix.Sections) || ix.over.noHeader) {
		// Another magic, so that what is there counts no more.
		magic := rand.Uint32() | 1
		for _, s := range ix.over.levels {
			s.Magic = magic
		}
		ix.over.noHeader = true
		if err := ix.readyOverflow(); err != nil {
			return err
		}
	}
	memory := b.Memory
	if memory <= 0 {
		memory = DefaultCheckMemory
	}
	atOnce := max(1000, memory/int64(unsafe.Sizeof(Entry{})))
	passes := uint64(max(1, (b.Count+atOnce-1)/atOnce))
	step := uint32(max(1, (uint64(b.ix.Buckets)+passes-1)/passes))
	b.want = forPass(b.Count, atOnce)
	for _, s := range b.Sections {
		for lo := s.Start; lo < s.Stop; {
			hi := uint32(min(uint64(lo)+uint64(step), uint64(s.Stop)))
			if err := b.pass(ctx, s, lo, hi); err != nil {
				return err
			}
			lo = hi
		}
		if err := s.sync(); err != nil {
			return fmt.Errorf("section %s: %w", s.Name, err)
		}
	}
	if ix := b.ix; ix.over != nil {
		if err := ix.over.levels[0].sync(); err != nil {
			return fmt.Errorf("overflow: %w", err)
		}
	}
	if b.Left != nil && len(b.left) > 0 {
		if err := b.Left(b.left); err != nil {
			return err
		}
	}
	if b.Built != nil {
		if err := b.Built(); err != nil {
			return err
		}
	}
	return b.name(b.ix.Name)
}

// name makes the sections part of an index, or of none.
func (b *builder) name(index string) error {
	for _, s := range b.Sections {
		s.Index = index
		if err := s.writeHeader(); err != nil {
			return fmt.Errorf("section %s: %w", s.Name, err)
		}
	}
	return nil
}

// pass writes the buckets [lo,hi) of a section.
func (b *builder) pass(ctx context.Context, s *Section, lo, hi uint32) error {
	want := b.want[:0]
	for e, err := range b.Source(ctx) {
		if err != nil {
			return err
		}
		if n := b.ix.Bucket(e.Score); n >= lo && n < hi {
			want = append(want, e)
		}
	}
	b.want = want
	Sort(want)
	w := &runWriter{s: s}
	for lo < hi {
		if err := ctx.Err(); err != nil {
			return err
		}
		next := min(hi, lo+uint32(max(1, maxRun/s.BlockSize)))
		w.reset(lo, next-1)
		for ; lo < next; lo++ {
			n := 0
			for n < len(want) && b.ix.Bucket(want[n].Score) == lo {
				n++
			}
			mine := inLogOrder(want[:n])
			want = want[n:]
			b.add(mine)
			parts, rest := cut(mine, 1+len(b.ix.levels()), s.Capacity())
			b.entries += int64(len(mine) - len(rest))
			b.left = append(b.left, rest...)
			w.replace(lo, sortedCopy(parts[0]))
			if err := b.ix.replaceOverflow(lo, parts[1:]); err != nil {
				return err
			}
		}
		if err := w.write(); err != nil {
			return err
		}
	}
	return nil
}

// add adds entries to the filter.
func (b *builder) add(entries []Entry) {
	if b.Bloom != nil {
		for i := range entries {
			b.Bloom.Add(entries[i].Score)
		}
	}
}

// ErrUnfinished is what Open returns when a Build was interrupted.
var ErrUnfinished = errors.New("building the index was interrupted: run buildindex again")
