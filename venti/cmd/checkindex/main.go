// Checkindex compares an index and its Bloom filter with the arenas, see
// venti-backup(8).
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/internal/disk"
	"strata/venti/internal/bloom"
	"strata/venti/internal/config"
	"strata/venti/internal/index"
)

func main() { newCommand().Main() }

// options are the flags.
type options struct {
	fix    bool
	memory string
}

func newCommand() *command.Command {
	var o options
	return &command.Command{
		Name: "venti/checkindex", Usage: "[-f] [-B memory] config [tmp]",
		Doc: `Compares the index and the Bloom filter that config names with the directories
of the arenas. It prints the bucket of each difference and then
	< score address type size blocks    what the index has
	> score address type size blocks    what it ought to have
and exits 1 if there is any. Clumps that the server has not indexed yet are no
differences: it does so when it starts. tmp is not used; plan9port's program
needs it.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.BoolVarP(&o.fix, "fix", "f", false, "put the index and the filter right")
			fs.StringVarP(&o.memory, "memory", "B", "256m", "memory for entries; with less, the directories are read more often")
			fs.BoolP("no-zero", "Z", false, "does nothing")
			fs.MarkHidden("no-zero")
		},
		Run: func(ctx context.Context, io command.IO) error { return run(ctx, io, o) },
	}
}

func run(ctx context.Context, io command.IO, o options) (err error) {
	if len(io.Args) != 1 && len(io.Args) != 2 {
		return command.ErrUsage
	}
	memory, err := disk.ParseSize(o.memory)
	if err != nil || memory == 0 {
		return command.Usagef("bad memory size %q", o.memory)
	}
	c, err := config.Load(io.Args[0])
	if err != nil {
		return err
	}
	p, err := index.OpenParts(c, disk.Options{ReadOnly: !o.fix})
	if err != nil {
		return err
	}
	defer p.Close()
	ix, err := p.OpenIndex(c)
	if err != nil {
		return err
	}
	pending, count, err := ix.Pending(p.Arenas)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(io.Stdout)
	defer func() { err = errors.Join(err, out.Flush()) }()
	check := index.CheckConfig{
		Source: ix.ArenaSource(p.Arenas), Count: count, Memory: memory, Pending: pending, Fix: o.fix,
		Report: reporter(out, c, ix),
	}
	var filter *bloom.Filter
	if p.Bloom != nil {
		if filter, err = bloom.Open(p.Bloom); err != nil {
			return fmt.Errorf("%s: %w", c.Bloom, err)
		}
		defer filter.Close()
		check.Bloom = filter
	}
	fmt.Fprintf(io.Stderr, "checkindex: checking %d entries\n", count)
	r, err := ix.Check(ctx, check)
	if err != nil {
		return err
	}
	if o.fix && r.BloomMissing > 0 {
		if err = filter.Save(); err == nil {
			err = p.Bloom.Sync()
		}
		if err != nil {
			return err
		}
	}
	return summarize(io, r, o.fix, filter != nil)
}

// reporter returns a function that prints the differences in the index to
// out: for each bucket with some a line that says where it is, and then a line
// for each. What the filter misses is only counted: it may miss everything.
func reporter(out *bufio.Writer, c *config.Config, ix *index.Index) func(index.Difference) {
	part := make(map[*index.Section]string)
	for i, s := range ix.Sections {
		part[s] = c.Sections[i]
	}
	var section *index.Section
	var offset int64
	return func(d index.Difference) {
		if d.Kind == index.BloomMissing {
			return
		}
		if section == nil {
			fmt.Fprintln(out, "# diff actual correct")
		}
		if d.Section != section || d.Offset != offset {
			section, offset = d.Section, d.Offset
			fmt.Fprintf(out, "%s block %#x\n", part[section], offset)
		}
		e := &d.Entry
		entry := fmt.Sprintf("%v %22d %3d %5d %3d", e.Score, e.Addr, e.Type.Type(), e.Size, e.Blocks)
		switch d.Kind {
		case index.Extra:
			fmt.Fprintln(out, "<", entry)
		case index.Missing:
			fmt.Fprintln(out, ">", entry)
		case index.Damaged:
			fmt.Fprintf(out, "# %v\n", d.Err)
		}
	}
}

// summarize prints what was found, and returns an error if something is, or
// stays, wrong.
func summarize(io command.IO, r index.CheckResult, fixed, hasFilter bool) error {
	if r.Pending > 0 {
		fmt.Fprintf(io.Stderr, "checkindex: %d entries not indexed yet\n", r.Pending)
	}
	if r.Damaged > 0 {
		fmt.Fprintf(io.Stderr, "checkindex: %d damaged buckets\n", r.Damaged)
	}
	if r.Extra+r.Missing > 0 {
		fmt.Fprintf(io.Stderr, "checkindex: %d spurious entries, %d missing\n", r.Extra, r.Missing)
	}
	switch {
	case !hasFilter:
	case r.BloomMissing > 0:
		fmt.Fprintf(io.Stderr, "bloom filter: %d scores missing\n", r.BloomMissing)
	default:
		fmt.Fprintln(io.Stderr, "bloom filter: correct")
	}
	switch {
	case !r.Wrong():
		fmt.Fprintln(io.Stderr, "checkindex: index is correct")
		return nil
	case r.Full > 0:
		return fmt.Errorf("errors found; %d entries do not fit in their buckets", r.Full)
	case fixed:
		fmt.Fprintln(io.Stderr, "checkindex: fixed")
		return nil
	}
	return errors.New("errors found")
}
