package console

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"strata/fossil"
	"strata/fossil/internal/format"
)

// repairCommands look for damage and repair it, or what is done to that end.
func repairCommands() []Command {
	return []Command{{
		Name: "check", Scope: Any,
		Args: "[pblock] [pdir] [pfile] [bclose] [clri] [clre] [clrp] [fix] [data] [venti] [snapshot]",
		Help: "Look whether blocks, streams and directories agree, and repair them.\n" +
			"Clients go on meanwhile. pblock, pdir and pfile print what is looked at. bclose, clri, clre and clrp allow\n" +
			"repairs: of labels, names and metadata blocks, entries, pointers; fix allows all. It looks again until\n" +
			"nothing is left that it may repair. data reads the blocks of files, too, venti looks whether Venti has\n" +
			"all blocks that it should, snapshot looks at the directories of snapshots.",
		Run: runCheck,
	}, {
		Name: "bclose", Args: "addr epoch", Scope: Open,
		Help: "Say that the active tree has not had a block since an epoch.\nWith epoch 0 it is free. A label command that undoes it is printed.",
		Run:  runBclose,
	}, {
		Name: "bfree", Args: "addr...", Scope: Open,
		Help: "Make blocks free.\nThe label commands that undo it are printed.",
		Run:  runBfree,
	}, {
		Name: "block", Args: "addr offset [count [data]]", Scope: Open,
		Help: "Print bytes of a block, in hexadecimal, or replace them.\nWhat was there and what is there now is printed, as commands.",
		Run:  runBlock,
	}, {
		Name: "clre", Args: "addr slot...", Scope: Open,
		Help: "Clear entries of a block of a directory.\nThe block commands that undo it are printed.",
		Run:  func(ctx context.Context, c *Call) error { return runClear(ctx, c, true) },
	}, {
		Name: "clri", Args: "path...", Scope: Open,
		Help: "Take names out of their directories, whatever they name.\nThe blocks that they still have are lost until a check closes them. It cannot be undone.",
		Run:  runClri,
	}, {
		Name: "clrp", Args: "addr slot...", Scope: Open,
		Help: "Clear pointers of a block.\nThe block commands that undo it are printed.",
		Run:  func(ctx context.Context, c *Call) error { return runClear(ctx, c, false) },
	}, {
		Name: "label", Args: "addr [type state epoch epochClose tag]", Scope: Open,
		Help: "Print the label of a block, as a command, or change it.\nWhat is - stays. What it was is printed, as a command.",
		Run:  runLabel,
	}}
}

// number returns the number that a word says.
func number[T int | uint8 | uint32](what, word string, bits int) (T, error) {
	n, err := strconv.ParseUint(word, 0, bits)
	if err != nil {
		return 0, fmt.Errorf("bad %s %q", what, word)
	}
	return T(n), nil
}

// address is number for a block.
func address(word string) (uint32, error) { return number[uint32]("address", word, 32) }

func runCheck(ctx context.Context, c *Call) error {
	if err := c.Parse(c.Flags(), 0, many); err != nil {
		return err
	}
	cfg := fossil.CheckConfig{Progress: func(line string) { c.Printf("%s\n", line) }}
	for _, word := range c.Args {
		switch word {
		case "pblock":
			cfg.Blocks = true
		case "pdir":
			cfg.Dirs = true
		case "pfile":
			cfg.Files = true
		case "bclose":
			cfg.Fix |= fossil.Bclose
		case "clri":
			cfg.Fix |= fossil.Clri
		case "clre":
			cfg.Fix |= fossil.Clre
		case "clrp":
			cfg.Fix |= fossil.Clrp
		case "fix":
			cfg.Fix = fossil.AllRepairs
		case "data":
			cfg.Data = true
		case "venti":
			cfg.Venti = true
		case "snapshot":
			cfg.Snapshots = true
		default:
			return c.Usagef("unknown option %q", word)
		}
	}
	r, err := c.Fsys.FS().Check(ctx, cfg)
	if err != nil {
		return err
	}
	r.Print(c.Out, false)
	if cfg.Fix == 0 {
		c.Printf("fsck: %v\n", r.Todo)
		return nil
	}
	c.Printf("fsck: %v\n", r.Done)
	if n := r.Left(); n > 0 {
		return fmt.Errorf("%d errors are left", n)
	}
	return nil
}

// labelCommand returns the command that makes l the label of a block.
func labelCommand(addr uint32, l format.Label) string {
	return fmt.Sprintf("label %#x %d %#x %d %#x %#x", addr, uint8(l.Type), uint8(l.State), l.Epoch, l.EpochClose, l.Tag)
}

// setLabel changes a label, and prints what undoes that.
func setLabel(ctx context.Context, c *Call, addr uint32, change func(l format.Label) format.Label) error {
	old, err := c.Fsys.FS().SetLabel(ctx, addr, change)
	if err == nil {
		c.Printf("%s\n", labelCommand(addr, old))
	}
	return err
}

func runLabel(ctx context.Context, c *Call) error {
	if err := c.Parse(c.Flags(), 1, 6); err != nil {
		return err
	}
	if n := len(c.Args); n != 1 && n != 6 {
		return c.Usage()
	}
	addr, err := address(c.Args[0])
	if err != nil {
		return err
	}
	if len(c.Args) == 1 {
		l, err := c.Fsys.FS().Label(ctx, addr)
		if err != nil && !errors.Is(err, format.ErrLabel) {
			return err
		}
		c.Printf("%s\n", labelCommand(addr, l))
		return err
	}
	var change []func(l *format.Label)
	field := func(what string, i, bits int, set func(l *format.Label, n uint32)) {
		word := c.Args[i]
		if word == "-" || err != nil {
			return
		}
		var n uint32
		if n, err = number[uint32](what, word, bits); err == nil {
			change = append(change, func(l *format.Label) { set(l, n) })
		}
	}
	field("type", 1, 8, func(l *format.Label, n uint32) { l.Type = format.Type(n) })
	field("state", 2, 8, func(l *format.Label, n uint32) { l.State = format.State(n) })
	field("epoch", 3, 32, func(l *format.Label, n uint32) { l.Epoch = n })
	field("close epoch", 4, 32, func(l *format.Label, n uint32) { l.EpochClose = n })
	field("tag", 5, 32, func(l *format.Label, n uint32) { l.Tag = n })
	if err != nil {
		return err
	}
	return setLabel(ctx, c, addr, func(l format.Label) format.Label {
		for _, f := range change {
			f(&l)
		}
		return l
	})
}

func runBfree(ctx context.Context, c *Call) error {
	if err := c.Parse(c.Flags(), 1, many); err != nil {
		return err
	}
	for _, word := range c.Args {
		addr, err := address(word)
		if err == nil {
			err = setLabel(ctx, c, addr, func(format.Label) format.Label { return format.Freed })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func runBclose(ctx context.Context, c *Call) error {
	if err := c.Parse(c.Flags(), 2, 2); err != nil {
		return err
	}
	addr, err := address(c.Args[0])
	if err != nil {
		return err
	}
	epoch, err := number[uint32]("epoch", c.Args[1], 32)
	if err != nil {
		return err
	}
	if l, err := c.Fsys.FS().Label(ctx, addr); err != nil {
		return err
	} else if !l.InUse() {
		return fmt.Errorf("block %#x is %v", addr, l)
	}
	return setLabel(ctx, c, addr, func(l format.Label) format.Label {
		l.State |= format.Closed
		l.EpochClose = epoch
		return l
	})
}

func runBlock(ctx context.Context, c *Call) error {
	if err := c.Parse(c.Flags(), 2, 4); err != nil {
		return err
	}
	addr, err := address(c.Args[0])
	if err != nil {
		return err
	}
	off, err := number[int]("offset", c.Args[1], 31)
	if err != nil {
		return err
	}
	fs := c.Fsys.FS()
	if off >= fs.BlockSize() {
		return fmt.Errorf("bad offset %d: a block has %d bytes", off, fs.BlockSize())
	}
	count := fs.BlockSize() - off
	if len(c.Args) > 2 {
		if count, err = number[int]("count", c.Args[2], 31); err != nil {
			return err
		}
		if count > fs.BlockSize()-off {
			return fmt.Errorf("bad count %d: there are %d bytes at %d", count, fs.BlockSize()-off, off)
		}
	}
	command := func(b []byte) string { return fmt.Sprintf("block %#x %d %d %x", addr, off, len(b), b) }
	if len(c.Args) < 4 {
		b, err := fs.Block(ctx, addr)
		if err == nil {
			c.Printf("%s\n", command(b[off:off+count]))
		}
		return err
	}
	data, err := hex.DecodeString(c.Args[3])
	if err != nil {
		return fmt.Errorf("bad data %q: %w", c.Args[3], err)
	}
	if len(data) != count {
		return fmt.Errorf("%d bytes of data for a count of %d", len(data), count)
	}
	old, err := fs.Patch(ctx, addr, off, data)
	if err == nil {
		c.Printf("old: %s\nnew: %s\n", command(old), command(data))
	}
	return err
}

func runClear(ctx context.Context, c *Call, entries bool) error {
	if err := c.Parse(c.Flags(), 2, many); err != nil {
		return err
	}
	addr, err := address(c.Args[0])
	if err != nil {
		return err
	}
	var slots []int
	for _, word := range c.Args[1:] {
		n, err := number[int]("slot", word, 31)
		if err != nil {
			return err
		}
		slots = append(slots, n)
	}
	return c.Fsys.FS().ClearSlots(ctx, addr, entries, slots, func(off int, old []byte) {
		c.Printf("block %#x %d %d %x\n", addr, off, len(old), old)
	})
}

func runClri(ctx context.Context, c *Call) error {
	if err := c.Parse(c.Flags(), 1, many); err != nil {
		return err
	}
	for _, name := range c.Args {
		dir, last := path.Split(strings.TrimRight(name, "/"))
		if last == "" {
			return fmt.Errorf("clri %s: %w", name, fossil.ErrRemoveRoot)
		}
		d, err := c.Fsys.FS().Walk(ctx, dir)
		if err == nil {
			err = d.Clri(ctx, last, "adm")
		}
		if err != nil {
			return fmt.Errorf("clri %s: %w", name, err)
		}
	}
	return nil
}
