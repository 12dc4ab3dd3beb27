// Vbackup stores a partition in a Venti archive.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/vdisk"
	"strata/venti"
)

const doc = `Store the partition or file DISK and print its score, in a line that vnfs of
Plan 9 takes:

    mount /sysname/yyyy/mmdd/mountpoint type:score yyyy/mmdd/hhmm

Of ext2, ext3 and ext4 file systems (type ext2) the free blocks are left out,
where it is certain which they are, and read as zeros afterwards. Of anything
else every byte is kept (type rawdisk); vdisk import stores a disk with several
partitions better.

SCORE is that of an earlier backup. What has not changed since is neither
looked up nor sent, and the new root names the old one. Nothing else of the
result differs.

What Plan 9's -f and -i ask for is always so: blocks that the server has are not
sent, and old scores are read as they are needed.`

func main() { backup(time.Now).Main() }

type backuper struct {
	now                       func() time.Time
	host, sysname, mountpoint string
	dry, verbose              bool
	status, parallel          int
}

func backup(now func() time.Time) *command.Command {
	c := backuper{now: now}
	return &command.Command{
		Name: "vbackup", Usage: "[-nv] [-h address] [-m sysname] [-M mountpoint] [-s seconds] [-w n] DISK [SCORE]", Doc: doc,
		Flags: func(fs *pflag.FlagSet) {
			fs.StringVarP(&c.host, "host", "h", "", "`address` of the Venti server, instead of $venti")
			fs.StringVarP(&c.sysname, "sysname", "m", "", "`name` to print for this machine")
			fs.StringVarP(&c.mountpoint, "mountpoint", "M", "", "`folder` to print instead of where DISK is mounted")
			fs.BoolVarP(&c.dry, "dry-run", "n", false, "store nothing, only print the score")
			fs.IntVarP(&c.status, "status", "s", 0, "print how far it is every so many `seconds`")
			fs.BoolVarP(&c.verbose, "verbose", "v", false, "print what became of the blocks")
			fs.IntVarP(&c.parallel, "writers", "w", 0, "`pieces` of DISK that are stored at once")
			fs.BoolP("fast", "f", true, "")
			fs.BoolP("incremental", "i", true, "")
			fs.Lookup("fast").Hidden, fs.Lookup("incremental").Hidden = true, true
		},
		Run: c.run,
	}
}

func (c *backuper) run(ctx context.Context, io command.IO) error {
	if len(io.Args) < 1 || len(io.Args) > 2 || c.status < 0 || c.parallel < 0 {
		return command.ErrUsage
	}
	name := io.Args[0]
	opt := vdisk.ImportOptions{Name: rootName(name), Parallel: c.parallel}
	if len(io.Args) == 2 {
		_, old, err := venti.ParseTypedScore(io.Args[1])
		if err != nil {
			return command.Usagef("%s: %v", io.Args[1], err)
		}
		opt.Base, opt.Prev = old, old
	}
	disk, err := vdisk.OpenDisk(name)
	if err != nil {
		return err
	}
	defer disk.Close()
	mountpoint, sysname := c.mountpoint, c.sysname
	if mountpoint == "" {
		if mountpoint, err = mountedAt(name); err != nil {
			return err
		}
	}
	if sysname == "" {
		if sysname, err = os.Hostname(); err != nil {
			return err
		}
	}
	client, err := venti.Dial(ctx, c.host)
	if err != nil {
		return err
	}
	defer client.Close()
	var st venti.Store = client
	if c.dry {
		st = dryStore{client}
	}
	if c.status > 0 {
		opt.Progress = c.progress(io.Stderr, disk.Size())
	}
	began := c.now()
	res, err := vdisk.Backup(ctx, st, disk, opt)
	if err != nil {
		return err
	}
	if r := res.Layout.Regions[0]; r.Whole != "" {
		fmt.Fprintf(io.Stderr, "vbackup: %s is stored whole: %s\n", name, vdisk.Printable(r.Whole))
	}
	if c.verbose {
		n := res.Total
		fmt.Fprintf(io.Stderr, "vbackup: %d bytes, %d free, %d zero; %d blocks the server had, %d blocks of %d bytes sent; %.2f s\n",
			n.Size, n.Free+n.Size-n.Allocated, n.Zero, n.SharedBlocks, n.NewBlocks, n.New, res.Seconds)
	}
	_, err = io.Stdout.Write(report(name, sysname, mountpoint, began, res))
	return err
}

// progress returns a function that prints how much of the disk is done, but
// not more often than was asked for.
func (c *backuper) progress(w io.Writer, size int64) func(done int64) {
	last := c.now()
	return func(done int64) {
		if now := c.now(); now.Sub(last) >= time.Duration(c.status)*time.Second {
			last = now
			fmt.Fprintf(w, "# %s %d/%d\n", now.Format(clock), done, size)
		}
	}
}

// A dryStore asks whether a block is there and writes none.
type dryStore struct{ *venti.Client }

func (dryStore) WriteBlock(_ context.Context, _ venti.Type, data []byte) (venti.Score, error) {
	return venti.ScoreOf(data), nil
}

func (dryStore) WriteScored(context.Context, venti.Score, venti.Type, []byte) error { return nil }

func (dryStore) Sync(context.Context) error { return nil }
