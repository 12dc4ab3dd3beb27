package console

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"

	"strata/fossil"
	"strata/fossil/tree"
	"strata/vac/meta"
)

// adm is who the console is to the file system.
const adm = "adm"

// fileCommands are about single files, whoever may do what with them.
func fileCommands() []Command {
	return []Command{{
		Name: "create", Args: "path uid gid perm", Scope: Open,
		Help: "Make a file, or with a d in perm a directory.\n" + modeHelp,
		Run:  runCreate,
	}, {
		Name: "remove", Args: "path...", Scope: Open,
		Help: "Remove files and empty directories.",
		Run:  runRemove,
	}, {
		Name: "stat", Args: "path...", Scope: Open,
		Help: "Print what is known of files: stat PATH NAME UID GID MODE LENGTH.\n" + modeHelp,
		Run:  runStat,
	}, {
		Name: "wstat", Args: "path name uid gid mode length", Scope: Open,
		Help: "Change what is known of a file; a - leaves it.\nWhat was and what is is printed.\n" + modeHelp,
		Run:  runWstat,
	}}
}

const modeHelp = "A mode is letters and octal permissions, such as d775: Y sticky, U setuid, G setgid, a append\n" +
	"only, l for one at a time, L symbolic link, d directory, H hidden, S system, A archive, T temporary."

// split returns the directory of a path, and the name in it.
func (c *Call) split(ctx context.Context, name string) (*fossil.File, string, error) {
	name = path.Clean("/" + name)
	dir, err := c.Fsys.FS().Walk(ctx, path.Dir(name))
	return dir, path.Base(name), err
}

func runCreate(ctx context.Context, c *Call) error {
	if err := c.Parse(c.Flags(), 4, 4); err != nil {
		return err
	}
	uid, gid := c.Args[1], c.Args[2]
	mode, err := parseMode(c.Args[3])
	if err != nil {
		return err
	}
	if mode&meta.ModeSnapshot != 0 {
		return errors.New("create: cannot create with snapshot bit set")
	}
	dir, name, err := c.split(ctx, c.Args[0])
	if err != nil {
		return err
	}
	if err := c.free(dir, name); err != nil {
		return err
	}
	f, err := dir.Create(ctx, name, mode, uid)
	if err != nil {
		return fmt.Errorf("create %s: %w", c.Args[0], err)
	}
	return f.SetAttr(ctx, fossil.Change{GID: &gid}, uid)
}

// free returns an error if a name of the root directory is the console's.
func (c *Call) free(dir *fossil.File, name string) error {
	if dir == c.Fsys.FS().Root() && name == tree.CtlName {
		return fmt.Errorf("/%s: %w", name, fossil.ErrExist)
	}
	return nil
}

func runRemove(ctx context.Context, c *Call) error {
	if err := c.Parse(c.Flags(), 1, many); err != nil {
		return err
	}
	return c.each(func(path string) error {
		f, err := c.Fsys.FS().Walk(ctx, path)
		if err != nil {
			return err
		}
		if err := f.Remove(ctx, adm); err != nil {
			return fmt.Errorf("remove %s: %w", path, err)
		}
		return nil
	})
}

// each does something with each argument, whatever becomes of the others.
func (c *Call) each(do func(arg string) error) error {
	var errs []error
	for _, arg := range c.Args {
		errs = append(errs, do(arg))
	}
	return errors.Join(errs...)
}

func runStat(ctx context.Context, c *Call) error {
	if err := c.Parse(c.Flags(), 1, many); err != nil {
		return err
	}
	return c.each(func(path string) error {
		f, err := c.Fsys.FS().Walk(ctx, path)
		if err != nil {
			return err
		}
		return c.stat(ctx, "stat", path, f)
	})
}

// stat prints a line about a file that begins with a word.
func (c *Call) stat(ctx context.Context, word, path string, f *fossil.File) error {
	i, err := f.Stat(ctx)
	if err != nil {
		return fmt.Errorf("stat %s: %w", path, err)
	}
	c.Printf("\t%s %s\n", word, Join([]string{path, i.Name, i.UID, i.GID, formatMode(i.Mode), strconv.FormatInt(i.Size, 10)}))
	return nil
}

func runWstat(ctx context.Context, c *Call) error {
	if err := c.Parse(c.Flags(), 6, 6); err != nil {
		return err
	}
	given := func(i int) *string {
		if c.Args[i] == "-" {
			return nil
		}
		return &c.Args[i]
	}
	ch := fossil.Change{Name: given(1), UID: given(2), GID: given(3)}
	if text := given(4); text != nil {
		mode, err := parseMode(*text)
		if err != nil {
			return err
		}
		ch.Mode = &mode
	}
	if text := given(5); text != nil {
		n, err := strconv.ParseInt(*text, 0, 64)
		if err != nil || n < 0 {
			return fmt.Errorf("bad length '%s'", *text)
		}
		ch.Size = &n
	}
	f, err := c.Fsys.FS().Walk(ctx, c.Args[0])
	if err != nil {
		return err
	}
	if dir, err := f.Parent(ctx); err == nil && ch.Name != nil {
		if err := c.free(dir, *ch.Name); err != nil {
			return err
		}
	}
	was, err := f.Stat(ctx)
	if err != nil {
		return err
	}
	const kind = meta.ModeDir | meta.ModeSnapshot
	if ch.Mode != nil && *ch.Mode&kind != was.Mode&kind {
		return errors.New("wstat: cannot change dir or snapshot bit")
	}
	if err := c.stat(ctx, "old:", c.Args[0], f); err != nil {
		return err
	}
	if err := f.SetAttr(ctx, ch, adm); err != nil {
		return fmt.Errorf("wstat %s: %w", c.Args[0], err)
	}
	now := c.Args[0]
	if p, err := f.Path(ctx); err == nil {
		now = p
	}
	return c.stat(ctx, "new:", now, f)
}
