package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/vdisk"
	"strata/vdisk/fsys"
	"strata/vdisk/live"
	"strata/venti"
)

const fsDoc = `Look into a partition of a disk, read-only:

  vdisk fs ls [-l] DISK:N/PATH     list a directory, or a file
  vdisk fs cat DISK:N/PATH...      write files to the standard output
  vdisk fs cp [-r] DISK:N/PATH TO  copy a file out, or a directory with -r

DISK is the score of a stored disk, or NAME@SNAP or NAME: a snapshot of a live image, or
that as it is now, in the vdisk that --server names, or else $vdisk. N is the number of a partition, or 0 for a disk without a table; N.NAME is the
logical volume NAME in it. Read are ext2, ext3 and ext4, whose journal counts as
replayed if that has to be, and FAT, exFAT and NTFS, as they are on the disk, but for
files of NTFS that are compressed or encrypted.

Copies have the permissions and times of the files; owners, devices and the
like are left out, and what is left out is named on the standard error. In
what is copied symbolic links stay as they are.`

type inside struct {
	host, server    string
	long, recursive bool
}

func fsCommand() *command.Command {
	var c inside
	return &command.Command{
		Name: "vdisk fs", Usage: "[-h address] [-s address] ls|cat|cp [-lr] DISK:N/PATH...", Doc: fsDoc,
		Flags: func(fs *pflag.FlagSet) {
			hostFlag(fs, &c.host)
			serverFlag(fs, &c.server)
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
	switch {
	case verb == "ls" && len(args) == 1:
		return c.with(ctx, args[0], func(f fsys.File, name string) error { return c.list(io.Stdout, f, name) })
	case verb == "cat":
		for _, a := range args {
			if err := c.with(ctx, a, func(f fsys.File, _ string) error { return cat(io.Stdout, f, a) }); err != nil {
				return err
			}
		}
		return nil
	case verb == "cp" && len(args) == 2:
		return c.with(ctx, args[0], func(f fsys.File, name string) error {
			return c.copy(ctx, io.Stderr, f, name, args[0], args[1])
		})
	}
	return command.ErrUsage
}

// splitInside returns the parts of DISK:N/PATH. A score may have a colon in
// it, and so may a path.
func splitInside(arg string) (disk, part, file string, err error) {
	for i := 0; i < len(arg); i++ {
		if arg[i] != ':' {
			continue
		}
		_, _, err := venti.ParseTypedScore(arg[:i])
		if _, _, err2 := live.ParseRef(arg[:i]); err == nil || strings.HasSuffix(arg[:i], vdisk.ImageSuffix) || err2 == nil && arg[:i] != vdisk.RootType {
			part, file, _ := strings.Cut(arg[i+1:], "/")
			return arg[:i], part, file, nil
		}
	}
	return "", "", "", command.Usagef("%s: want DISK:N/PATH", arg)
}

// with calls f with the file that an argument names, and its name.
func (c *inside) with(ctx context.Context, arg string, f func(f fsys.File, name string) error) error {
	disk, part, file, err := splitInside(arg)
	if err != nil {
		return err
	}
	found := func(root fsys.File, err error) error {
		if err != nil {
			return err
		}
		x, err := vdisk.WalkFiles(root, file, true)
		if err != nil {
			return err
		}
		return f(x, path.Base("/"+file))
	}
	if _, err := scoreText(disk); err != nil {
		if name, snap, err2 := live.ParseRef(disk); err2 == nil && !strings.HasSuffix(disk, vdisk.ImageSuffix) {
			root, done, err := openRemote(ctx, c.server, name, snap, part)
			if err != nil {
				return err
			}
			defer done()
			return found(root, nil)
		}
		return err
	}
	return withArchive(ctx, c.host, func(st *venti.Client) error {
		im, err := openImage(ctx, st, disk)
		if err != nil {
			return err
		}
		return found(im.Files(part))
	})
}

func (c *inside) list(w io.Writer, f fsys.File, name string) error {
	t := tabwriter.NewWriter(w, 0, 8, 1, ' ', 0)
	if !f.Info().Mode.IsDir() {
		c.line(t, name, f.Info())
		return t.Flush()
	}
	var list []fsys.Entry
	var failed error
	for e, err := range f.Entries() {
		if failed = err; err != nil {
			failed = fmt.Errorf("%s: %w", path.Join(name, e.Name), err)
			break
		}
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b fsys.Entry) int { return strings.Compare(a.Name, b.Name) })
	for _, e := range list {
		c.line(t, e.Name, e.File.Info())
	}
	return errors.Join(t.Flush(), failed)
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

func cat(w io.Writer, f fsys.File, arg string) error {
	if !f.Info().Mode.IsRegular() {
		return fmt.Errorf("%s: not a regular file", arg)
	}
	if _, err := io.Copy(w, reader(f)); err != nil {
		return fmt.Errorf("%s: %w", arg, err)
	}
	return nil
}

func (c *inside) copy(ctx context.Context, stderr io.Writer, f fsys.File, name, arg, to string) error {
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
