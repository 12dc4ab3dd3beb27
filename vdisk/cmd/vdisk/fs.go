package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/vdisk"
	"strata/vdisk/fsys"
	"strata/venti"
)

const fsDoc = `Look into a partition of a stored disk, read-only:

  vdisk fs ls [-l] SCORE:N/PATH     list a directory, or a file
  vdisk fs cat SCORE:N/PATH...      write files to the standard output
  vdisk fs cp [-r] SCORE:N/PATH TO  copy a file out, or a directory with -r

N is the number of a partition, or 0 for a disk without a table; N.NAME is the
logical volume NAME in it. Read are ext2, ext3, ext4 and FAT. A journal that has to be replayed counts as if it were.
Copies have the permissions and times of the files; owners, devices and the
like are left out, and what is left out is named on the standard error. In
what is copied symbolic links stay as they are.`

type inside struct {
	host            string
	long, recursive bool
}

func fsCommand() *command.Command {
	var c inside
	return &command.Command{
		Name: "vdisk fs", Usage: "[-h address] ls|cat|cp [-lr] SCORE:N/PATH...", Doc: fsDoc,
		Flags: func(fs *pflag.FlagSet) {
			hostFlag(fs, &c.host)
			fs.BoolVarP(&c.long, "long", "l", false, "ls: show modes, owners, sizes and times")
			fs.BoolVarP(&c.recursive, "recursive", "r", false, "cp: copy directories")
		},
		Run: c.run,
	}
}

func (c *inside) run(ctx context.Context, io command.IO) error {
	if len(io.Args) < 2 {
		return command.ErrUsage
	}
	verb, args := io.Args[0], io.Args[1:]
	return withArchive(ctx, c.host, func(st *venti.Client) error {
		switch {
		case verb == "ls" && len(args) == 1:
			return c.list(ctx, st, io.Stdout, args[0])
		case verb == "cat":
			for _, a := range args {
				if err := c.cat(ctx, st, io.Stdout, a); err != nil {
					return err
				}
			}
			return nil
		case verb == "cp" && len(args) == 2:
			return c.copy(ctx, st, io.Stderr, args[0], args[1])
		}
		return command.ErrUsage
	})
}

// splitInside returns the parts of SCORE:N/PATH. A score may have a colon in
// it, and so may a path.
func splitInside(arg string) (score, part, file string, err error) {
	for i := 0; i < len(arg); i++ {
		if arg[i] != ':' {
			continue
		}
		if _, _, err := venti.ParseTypedScore(arg[:i]); err == nil || strings.HasSuffix(arg[:i], vdisk.ImageSuffix) {
			part, file, _ := strings.Cut(arg[i+1:], "/")
			return arg[:i], part, file, nil
		}
	}
	return "", "", "", command.Usagef("%s: want SCORE:N/PATH", arg)
}

// open returns the file that an argument names, and its name.
func (c *inside) open(ctx context.Context, br venti.BlockReader, arg string, follow bool) (fsys.File, string, error) {
	score, part, file, err := splitInside(arg)
	if err != nil {
		return nil, "", err
	}
	im, err := openImage(ctx, br, score)
	if err != nil {
		return nil, "", err
	}
	root, err := im.Files(part)
	if err != nil {
		return nil, "", err
	}
	f, err := vdisk.WalkFiles(root, file, follow)
	return f, path.Base("/" + file), err
}

func (c *inside) list(ctx context.Context, br venti.BlockReader, w io.Writer, arg string) error {
	f, name, err := c.open(ctx, br, arg, true)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 8, 1, ' ', 0)
	if !f.Info().Mode.IsDir() {
		c.line(t, name, f.Info())
		return t.Flush()
	}
	for e, err := range f.Entries() {
		if err != nil {
			t.Flush()
			return fmt.Errorf("%s: %w", path.Join(name, e.Name), err)
		}
		c.line(t, e.Name, e.File.Info())
	}
	return t.Flush()
}

// line writes the line of a file.
func (c *inside) line(w io.Writer, name string, info fsys.FileInfo) {
	name = vdisk.Printable(name)
	if !c.long {
		fmt.Fprintln(w, name)
		return
	}
	size := fmt.Sprint(info.Size)
	if info.Mode&fs.ModeDevice != 0 {
		size = fmt.Sprintf("%d,%d", info.Major, info.Minor)
	}
	if info.Target != "" {
		name += " -> " + vdisk.Printable(info.Target)
	}
	fmt.Fprintf(w, "%v\t%d\t%d\t%d\t%s\t%s\t%s\n", info.Mode, info.Links, info.UID, info.GID, size, info.ModTime.UTC().Format(time.RFC3339), name)
}

// reader reads all of a file.
func reader(f fsys.File) io.Reader { return io.NewSectionReader(f, 0, f.Info().Size) }

func (c *inside) cat(ctx context.Context, br venti.BlockReader, w io.Writer, arg string) error {
	f, _, err := c.open(ctx, br, arg, true)
	if err != nil {
		return err
	}
	if !f.Info().Mode.IsRegular() {
		return fmt.Errorf("%s: not a regular file", arg)
	}
	if _, err := io.Copy(w, reader(f)); err != nil {
		return fmt.Errorf("%s: %w", arg, err)
	}
	return nil
}

func (c *inside) copy(ctx context.Context, br venti.BlockReader, stderr io.Writer, arg, to string) error {
	f, name, err := c.open(ctx, br, arg, true)
	if err != nil {
		return err
	}
	if fi, err := os.Stat(to); err == nil && fi.IsDir() && name != "/" {
		to = filepath.Join(to, name)
	}
	if f.Info().Mode.IsDir() && !c.recursive {
		return fmt.Errorf("%s: a directory, and no -r", arg)
	}
	dir, base := filepath.Split(filepath.Clean(to))
	if dir == "" {
		dir = "."
	}
	// Names come from the disk: whatever they say, nothing is made outside.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return copyOut(ctx, root, base, f, stderr)
}

// copyOut copies a file to name below root.
func copyOut(ctx context.Context, root *os.Root, name string, f fsys.File, stderr io.Writer) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	info := f.Info()
	var err error
	switch info.Mode.Type() {
	case 0:
		err = copyFile(root, name, f)
	case fs.ModeSymlink:
		return root.Symlink(info.Target, name)
	case fs.ModeDir:
		if err := root.Mkdir(name, 0o700); err != nil && !os.IsExist(err) {
			return err
		}
		for e, err := range f.Entries() {
			if err != nil {
				return fmt.Errorf("%s: %w", path.Join(name, e.Name), err)
			}
			if e.Name == "" || e.Name == "." || e.Name == ".." || strings.ContainsAny(e.Name, "/\x00") {
				return fmt.Errorf("%s: bad name %q in it", name, e.Name)
			}
			if err := copyOut(ctx, root, path.Join(name, e.Name), e.File, stderr); err != nil {
				return err
			}
		}
	default:
		fmt.Fprintf(stderr, "%s is left out: %v\n", vdisk.Printable(name), info.Mode)
		return nil
	}
	if err == nil {
		err = root.Chmod(name, info.Mode.Perm())
	}
	if err == nil {
		err = root.Chtimes(name, info.ModTime, info.ModTime)
	}
	return err
}

func copyFile(root *os.Root, name string, f fsys.File) error {
	w, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, reader(f))
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
