// Buildindex makes an index anew from the arenas, see venti-fmt(8).
package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/internal/disk"
	"strata/venti/internal/arena"
	"strata/venti/internal/bloom"
	"strata/venti/internal/config"
	"strata/venti/internal/index"
	"strata/venti/internal/ventitool"
)

func main() { newCommand().Main() }

// options are the flags.
type options struct {
	bloom    bool
	sections []string
	memory   string
}

func newCommand() *command.Command {
	var o options
	return &command.Command{
		Name: "venti/buildindex", Usage: "[-b] [-i isect]... [-M memory] config",
		Doc: `Writes the index and the Bloom filter that config names anew, from the clump
directories of the arenas; with -i only some sections, and the filter only with
-b, to which nothing is then lost. Of the clumps with one score and type the
last is indexed. The server must not run.

It reads the directories once for as many entries as memory has room for. While
it works the sections belong to no index, so that no server starts on half of
one; interrupted, it begins again when it is run again.

Entries that their buckets have no room for go to the overflow, if config names
one. Without one they are counted, and the status is 1: a server finds their
clumps again whenever it starts. Larger sections (fmtisect, fmtindex, and this
program) have room for them.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.BoolVarP(&o.bloom, "bloom", "b", false, "with -i, add to the Bloom filter too")
			fs.StringArrayVarP(&o.sections, "isect", "i", nil, "write this `section` only; \"\" is none, to read the arenas")
			fs.StringVarP(&o.memory, "memory", "M", "", "`size` of the memory for entries (default: a quarter of the machine's)")
			fs.BoolP("dumb", "d", false, "does nothing")
			fs.IntP("maxdisks", "m", 0, "does nothing")
			fs.MarkHidden("dumb")
			fs.MarkHidden("maxdisks")
		},
		Run: func(ctx context.Context, io command.IO) error { return run(ctx, io, o) },
	}
}

// defaultMemory is a quarter of the machine's memory.
func defaultMemory() int64 {
	if n := command.Memory(); n > 0 {
		return n / 4
	}
	return index.DefaultCheckMemory
}

func run(ctx context.Context, io command.IO, o options) error {
	if len(io.Args) != 1 {
		return command.ErrUsage
	}
	memory := defaultMemory()
	if o.memory != "" {
		var err error
		if memory, err = disk.ParseSize(o.memory); err != nil || memory == 0 {
			return command.Usagef("bad memory size %q", o.memory)
		}
	}
	c, err := config.Load(io.Args[0])
	if err != nil {
		return err
	}
	p, err := index.OpenParts(c, disk.Options{})
	if err != nil {
		return err
	}
	defer p.Close()
	if err := index.Unfinished(c.Index, p.Sections); err != nil {
		return err
	}
	ix, err := index.Open(c.Index, p.Sections, index.MapArenas(p.Arenas))
	if err != nil {
		return err
	}
	b := &builder{io: io, c: c, p: p, ix: ix}
	if err := b.choose(o); err != nil {
		return err
	}
	if p.Overflow != nil {
		open := ix.OpenOverflow
		if b.sections == nil {
			open = ix.MakeOverflow
		}
		if err := open(p.Overflow); err != nil {
			return err
		}
	}
	return b.build(ctx, memory, o.bloom || len(o.sections) == 0)
}

type builder struct {
	io       command.IO
	c        *config.Config
	p        *index.Parts
	ix       *index.Index
	sections []*index.Section // nil means all
}

func (b *builder) say(format string, args ...any) {
	fmt.Fprintf(b.io.Stderr, ventitool.Stamp(time.Now())+" "+format+"\n", args...)
}

// choose finds the sections of -i.
func (b *builder) choose(o options) error {
	if len(o.sections) == 0 {
		return nil
	}
	b.sections = []*index.Section{}
	for _, n := range o.sections {
		if n == "" {
			continue
		}
		i := slices.IndexFunc(b.ix.Sections, func(s *index.Section) bool { return s.Name == n })
		if i < 0 {
			return fmt.Errorf("no index section %s", n)
		}
		b.sections = append(b.sections, b.ix.Sections[i])
	}
	return nil
}

func (b *builder) build(ctx context.Context, memory int64, withBloom bool) error {
	clumps := int64(0)
	for _, a := range b.p.Arenas {
		t, err := a.ReadTrailer()
		if err != nil {
			return err
		}
		if t.Mem.Clumps > 0 {
			b.say("arena %s: %d entries", a.Name, t.Mem.Clumps)
		}
		clumps += int64(t.Mem.Clumps)
	}
	cfg := index.BuildConfig{Source: b.ix.ArenaSource(b.p.Arenas), Count: clumps, Memory: memory, Sections: b.sections}
	var filter *bloom.Filter
	if b.p.Bloom != nil && withBloom {
		var err error
		if filter, err = bloom.Open(b.p.Bloom); err != nil {
			return fmt.Errorf("%s: %w", b.c.Bloom, err)
		}
		defer filter.Close()
		if b.sections == nil {
			filter.Reset()
		}
		cfg.Bloom = filter
		// On the disk before any section is an index again.
		cfg.Built = func() error {
			if err := filter.Save(); err != nil {
				return err
			}
			return b.p.Bloom.Sync()
		}
	}
	if b.sections != nil && len(b.sections) == 0 {
		n := 0
		for _, err := range cfg.Source(ctx) {
			if err != nil {
				return err
			}
			n++
		}
		b.say("done arenaentries=%s", command.Commas(int64(n)))
		return nil
	}
	cfg.Left = func(list []index.Entry) error { return b.unindex(ctx, list) }
	entries, left, err := b.ix.Build(ctx, cfg)
	if err != nil {
		return err
	}
	b.say("done arenaentries=%s indexed=%s (nskip=%d)", command.Commas(clumps), command.Commas(entries), len(left))
	fmt.Fprintf(b.io.Stdout, "%s clumps, %s buckets\n", command.Commas(clumps), command.Commas(int64(b.ix.Buckets)))
	if len(left) > 0 {
		return fmt.Errorf("%d entries have no room in their buckets: name an overflow, or make the index larger (fmtisect, fmtindex, buildindex)", len(left))
	}
	return nil
}

// unindex makes the trailers of arenas say that the clumps from the first of
// the entries on are not indexed, so that a server finds them.
func (b *builder) unindex(ctx context.Context, left []index.Entry) error {
	first := make(map[string]int64) // offsets in the logs
	for i := range left {
		n, off, ok := b.ix.LookupAddr(left[i].Addr)
		if !ok {
			continue
		}
		name := b.ix.Arenas[n].Name
		if at, ok := first[name]; !ok || int64(off) < at {
			first[name] = int64(off)
		}
	}
	for _, a := range b.p.Arenas {
		if at, ok := first[a.Name]; ok {
			if err := rewind(ctx, a, at); err != nil {
				return err
			}
		}
	}
	return nil
}

// rewind makes a trailer call the clumps before an offset indexed, and no
// more.
func rewind(ctx context.Context, a *arena.Arena, to int64) error {
	t, err := a.ReadTrailer()
	if err != nil || t.Disk.Used <= to {
		return err
	}
	var st arena.Stats
	for c, err := range a.Infos(ctx, int(t.Mem.Clumps)) {
		if err != nil {
			return err
		}
		if c.Off >= to {
			break
		}
		st.Add(&c.Info)
	}
	t.Disk = st
	t.Seal = [20]byte{} // it is summed again when it is indexed
	return a.WriteTrailer(&t)
}
