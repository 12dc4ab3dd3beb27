package console

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"strata/fossil"
	"strata/internal/ninep"
	"strata/vac"
	"strata/venti"
)

// dataCommands are about what files hold, and where.
func dataCommands() []Command {
	return []Command{{
		Name: "extents", Args: "path offset length", Scope: Open,
		Help: "Tell data from holes in a part of a file.\n" +
			"Each line is the offset and the length of a range that has data, in order; what is between is a hole.",
		Run: runExtents,
	}, {
		Name: "graft", Args: "[-u uid] path score[/n]", Scope: Open,
		Help: "Make what a root on Venti names a part of the active tree. Nothing is copied.\n" +
			"Of a vac archive that is the directory at its top, of any other root its n-th stream, counted from 0, as a file.\n" +
			"It belongs to adm, or uid. What stat prints of it is printed.",
		Run: runGraft,
	}, {
		Name: "last", Scope: Open,
		Help: "Print the score of the last archive.",
		Run:  runLast,
	}, {
		Name: "punch", Args: "path offset length", Scope: Open,
		Help: "Make a part of a file a hole.\nThe file is as long as before.",
		Run:  runPunch,
	}, {
		Name: "sync", Scope: Open,
		Help: "Make everything durable.",
		Run:  runSync,
	}, {
		Name: "vac", Args: "path", Scope: Open,
		Help: "Print a score for a directory all of which is on Venti, as what is in an archive is.",
		Run:  runVac,
	}}
}

// span reads an offset and a length.
func span(offset, length string) (off, n int64, err error) {
	off, err = strconv.ParseInt(offset, 0, 64)
	if err != nil || off < 0 {
		return 0, 0, fmt.Errorf("bad offset '%s'", offset)
	}
	n, err = strconv.ParseInt(length, 0, 64)
	if err != nil || n < 0 || off+n < 0 {
		return 0, 0, fmt.Errorf("bad length '%s'", length)
	}
	return off, n, nil
}

func runExtents(ctx context.Context, c *Call) error {
	if err := c.Parse(c.Flags(), 3, 3); err != nil {
		return err
	}
	off, n, err := span(c.Args[1], c.Args[2])
	if err != nil {
		return err
	}
	f, err := c.Fsys.FS().Walk(ctx, c.Args[0])
	if err != nil {
		return err
	}
	info, err := f.Stat(ctx)
	if err != nil {
		return err
	}
	end := min(off+n, info.Size)
	data := off // since where there is data, up to off
	line := func() {
		if data < off {
			c.Printf("\t%d %d\n", data, off-data)
		}
	}
	for off < end {
		from, to, err := f.Data(ctx, off)
		if err != nil {
			return fmt.Errorf("extents %s: %w", c.Args[0], err)
		}
		if from > off {
			line()
			data = min(from, end)
		}
		off = min(to, end)
	}
	line()
	return nil
}

func runPunch(ctx context.Context, c *Call) error {
	if err := c.Parse(c.Flags(), 3, 3); err != nil {
		return err
	}
	off, n, err := span(c.Args[1], c.Args[2])
	if err != nil {
		return err
	}
	f, err := c.Fsys.FS().Walk(ctx, c.Args[0])
	if err != nil {
		return err
	}
	if err := f.Punch(ctx, off, n, adm); err != nil {
		return fmt.Errorf("punch %s: %w", c.Args[0], err)
	}
	return nil
}

func runGraft(ctx context.Context, c *Call) error {
	fs := c.Flags()
	uid := fs.StringP("uid", "u", adm, "")
	if err := c.Parse(fs, 2, 2); err != nil {
		return err
	}
	text, number, numbered := strings.Cut(c.Args[1], "/")
	_, score, err := venti.ParseTypedScore(text)
	if err != nil {
		return fmt.Errorf("bad score '%s': %w", text, err)
	}
	n := 0
	if numbered {
		if n, err = strconv.Atoi(number); err != nil || n < 0 {
			return fmt.Errorf("bad stream number '%s'", number)
		}
	}
	dir, name, err := c.split(ctx, c.Args[0])
	if err != nil {
		return err
	}
	if err := c.free(dir, name); err != nil {
		return err
	}
	f, err := dir.Graft(ctx, name, score, n, *uid)
	if err != nil {
		return err
	}
	return c.stat(ctx, "stat", c.Args[0], f)
}

func runLast(_ context.Context, c *Call) error {
	if err := c.Parse(c.Flags(), 0, 0); err != nil {
		return err
	}
	score := c.Fsys.FS().Last()
	if score == venti.EmptyScore {
		return fmt.Errorf("file system %s was never archived", c.Fsys.Name())
	}
	c.Printf("%s\n", vac.FormatScore(score))
	return nil
}

func runSync(ctx context.Context, c *Call) error {
	if err := c.Parse(c.Flags(), 0, 0); err != nil {
		return err
	}
	fs := c.Fsys.FS()
	was := fs.Stats().Buffer
	if err := fs.Sync(ctx); err != nil {
		return err
	}
	c.Printf("\t%s sync: wrote %d blocks\n", c.Fsys.Name(), fs.Stats().Buffer.Changed-was.Changed)
	return nil
}

func runVac(ctx context.Context, c *Call) error {
	if err := c.Parse(c.Flags(), 1, 1); err != nil {
		return err
	}
	score, err := c.Fsys.FS().Vac(ctx, c.Args[0])
	if errors.Is(err, fossil.ErrNotOnVenti) {
		// Who waits for the archiver asks again.
		err = &ninep.Error{Text: fossil.ErrNotOnVenti.Error(), Errno: syscall.EAGAIN}
	}
	if err != nil {
		return err
	}
	c.Printf("%s\n", vac.FormatScore(score))
	return nil
}
