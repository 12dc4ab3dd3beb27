package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/vdisk"
	"strata/vdisk/live"
	"strata/venti"
)

const importDoc = `Store the disk in FILE, which may be a block device, and print its score. What the
archive has already is not sent again.

FILE is a raw image; named .qcow2 or .vmdk (streamOptimized) it is read as such an
image, and .vhdx, .vhd and .vdi are converted by qemu-img first, if it is there.
--format says otherwise. The score is that of the disk, whatever it came in. The
files that a qcow2 image lies upon must be in its own folder or below, or in that
of --backing, and their formats be stated in the image.

Free blocks are left out where the file system in a partition tells for
certain which they are, and so is the body of a swap partition; they read as
zeros afterwards. The table on the standard error tells region by region what
became of the disk, and why a region was stored whole.

With - for FILE the image is read from the standard input. File systems are
not read from front to back, so it is first copied to a temporary file, in
which blocks of zeros take no space; --tmp says where.

--base names a stored image that is like this one, such as yesterday's: what
is the same is not even looked up. The score is the same with and without.
With --changed only the parts of the disk that a list names are read at all: lines of
two numbers, offset and length in bytes; or what nbdinfo prints of a dirty bitmap of
QEMU (nbdinfo --map=qemu:dirty-bitmap:NAME --json); or what thin_delta prints of two LVM
volumes. What is not in the list must be as it was when the base was stored.

--into makes it a live image of that name too, in the vdisk that --server names, or
else $vdisk, which must be one over the same archive. For FILE there may be the
score of a stored disk then, or one that vdisk roots has printed, with which the image
has the history too; nothing is read.`

type importer struct {
	host, base, changed, prev, name string
	file                            vdisk.FileOptions
	exact, noPaging, json           bool
	into, server                    string
}

func importCommand() *command.Command {
	var c importer
	return &command.Command{
		Name: "vdisk import", Usage: "[-h address] [-ej] [-b score] [-p score] [-n name] [-i name [-s address]] FILE|-", Doc: importDoc,
		Flags: func(fs *pflag.FlagSet) {
			hostFlag(fs, &c.host)
			fs.BoolVarP(&c.exact, "exact", "e", false, "store every byte, also those of free blocks")
			fs.BoolVar(&c.noPaging, "no-paging", false, "leave out pagefile.sys, swapfile.sys and hiberfil.sys of Windows")
			fs.StringVarP(&c.base, "base", "b", "", "`score` of a stored image to compare with")
			fs.StringVar(&c.changed, "changed", "", "`file` that lists what has changed since the base; - is the standard input")
			fs.StringVarP(&c.prev, "prev", "p", "", "`score` to note as the image before this one")
			fs.StringVarP(&c.name, "name", "n", "", "`name` to note in the image")
			fs.BoolVarP(&c.json, "json", "j", false, "print what was done as JSON on the standard output")
			fs.StringVarP(&c.into, "into", "i", "", "`name` of a live image to make of it")
			serverFlag(fs, &c.server)
			fileFlags(fs, &c.file)
			fs.StringVar(&c.file.TempDir, "tmp", "", "`folder` for the copy of a stream, or of what qemu-img converts, instead of $TMPDIR")
		},
		Run: c.run,
	}
}

func (c *importer) run(ctx context.Context, io command.IO) error {
	if len(io.Args) != 1 {
		return command.ErrUsage
	}
	if c.into != "" {
		if err := live.CheckName(c.into); err != nil {
			return command.Usagef("--into: %v", err)
		}
	}
	if _, _, err := venti.ParseTypedScore(io.Args[0]); err == nil && c.into != "" {
		return ctl(ctx, c.server, io.Stdout, fmt.Sprintf("import %s %s", c.into, io.Args[0]))
	}
	opt := vdisk.ImportOptions{Exact: c.exact, OmitPaging: c.noPaging, Name: c.name}
	var err error
	if opt.Base, err = scoreFlag("base", c.base); err != nil {
		return err
	}
	if opt.Prev, err = scoreFlag("prev", c.prev); err != nil {
		return err
	}
	if opt.Changed, err = c.ranges(io); err != nil {
		return err
	}
	disk, err := c.open(ctx, io)
	if err != nil {
		return err
	}
	defer disk.Close()
	return withArchive(ctx, c.host, func(st *venti.Client) error {
		tell, stop := command.StartBar(io.Stderr, "storing", disk.Size())
		opt.Progress = tell
		res, err := vdisk.Import(ctx, st, disk, opt)
		stop()
		if err != nil {
			return err
		}
		if c.into != "" {
			if err := ctl(ctx, c.server, io.Stderr, fmt.Sprintf("import %s vdisk:%v", c.into, res.Score)); err != nil {
				return fmt.Errorf("stored as %s:%v: %w", vdisk.RootType, res.Score, err)
			}
		}
		if c.json {
			e := json.NewEncoder(io.Stdout)
			e.SetIndent("", " ")
			return e.Encode(res)
		}
		writeResult(io.Stderr, res)
		_, err = fmt.Fprintf(io.Stdout, "%s:%v\n", vdisk.RootType, res.Score)
		return err
	})
}

// ranges reads the list of what has changed; it is nil if there is to be none.
func (c *importer) ranges(io command.IO) ([]vdisk.Range, error) {
	switch {
	case c.changed == "":
		return nil, nil
	case c.base == "":
		return nil, command.Usagef("--changed goes with --base")
	case c.changed == "-" && io.Args[0] == "-":
		return nil, command.Usagef("the standard input is either the disk or the list")
	}
	in := io.Stdin
	if c.changed != "-" {
		f, err := os.Open(c.changed)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	list, err := vdisk.ReadRanges(in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.changed, err)
	}
	return list, nil
}

// open opens the disk, or copies the standard input.
func (c *importer) open(ctx context.Context, io command.IO) (vdisk.File, error) {
	if io.Args[0] != "-" {
		return vdisk.OpenFile(ctx, io.Args[0], c.file)
	}
	if c.file.Format != "" && c.file.Format != "raw" {
		return nil, command.Usagef("a stream is a raw disk")
	}
	tell, stop := command.StartBar(io.Stderr, "reading", -1)
	defer stop()
	disk, err := vdisk.Spool(ctx, io.Stdin, c.file.TempDir, tell)
	if err != nil {
		return nil, err // not a nil *Disk
	}
	return disk, nil
}

// writeResult writes the table of what became of each region.
func writeResult(w io.Writer, res *vdisk.Result) {
	width := len("region")
	for _, r := range res.Regions {
		width = max(width, len(r.Name))
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "%-*s\tsize\tin file\tfree\tzero\tshared\tnew\t\n", width, "region")
	row := func(name string, c vdisk.Counts) {
		fmt.Fprintf(t, "%-*s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", width, name,
			bytesText(c.Size), bytesText(c.Allocated), bytesText(c.Free), bytesText(c.Zero), bytesText(c.Shared), bytesText(c.New))
	}
	for _, r := range res.Regions {
		row(r.Name, r.Counts)
	}
	row("total", res.Total)
	t.Flush() // messages: there is nobody to tell
	for _, r := range res.Layout.Regions {
		if r.Whole != "" {
			fmt.Fprintf(w, "%s is stored whole: %s\n", r.Name, vdisk.Printable(r.Whole))
		}
	}
	for _, n := range res.Layout.Notes {
		fmt.Fprintf(w, "partition table: %s\n", vdisk.Printable(n))
	}
	rate := ""
	if res.Seconds > 0 {
		rate = fmt.Sprintf(", %s/s", bytesText(int64(float64(res.Total.Allocated)/res.Seconds)))
	}
	fmt.Fprintf(w, "%d blocks sent in %.2f s%s\n", res.Blocks, res.Seconds, rate)
}

// bytesText returns a number of bytes as people read it.
func bytesText(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/(1<<10), 0
	for v >= 999.5 && i < 4 {
		v, i = v/(1<<10), i+1
	}
	return fmt.Sprintf("%.4g %ciB", v, "KMGTP"[i])
}
