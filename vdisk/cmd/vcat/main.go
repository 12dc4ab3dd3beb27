// Vcat writes a partition that is kept in a Venti archive to its standard
// output.
package main

import (
	"context"
	"io"
	"os"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"strata/internal/command"
	"strata/vdisk"
	"strata/venti"
)

const doc = `Write the disk that SCORE names to the standard output. It is what vbackup
printed (ext2:... or rawdisk:...), a score of Plan 9's vbackup (ext2, ffs, hfs),
of vdisk import (vdisk:...), or one of a single file (file:...).

What is free, and blocks of zeros, become holes if the standard output is a file
that it begins, and zeros otherwise; so nothing of what was there remains. With
-z a file has no holes either.`

func main() { cat().Main() }

type catter struct {
	host string
	zero bool
}

func cat() *command.Command {
	var c catter
	return &command.Command{
		Name: "vcat", Usage: "[-z] [-h address] SCORE >DISK", Doc: doc,
		Flags: func(fs *pflag.FlagSet) {
			fs.StringVarP(&c.host, "host", "h", "", "`address` of the Venti server, instead of $venti")
			fs.BoolVarP(&c.zero, "zero", "z", false, "write zeros instead of leaving holes")
		},
		Run: c.run,
	}
}

func (c *catter) run(ctx context.Context, io command.IO) error {
	if len(io.Args) != 1 {
		return command.ErrUsage
	}
	client, err := venti.Dial(ctx, c.host)
	if err != nil {
		return err
	}
	defer client.Close()
	im, err := vdisk.OpenText(ctx, client, io.Args[0])
	if err != nil {
		return err
	}
	if f, ok := io.Stdout.(*os.File); ok && !c.zero && begins(f) {
		return export(ctx, im, f)
	}
	return vdisk.Stream(ctx, im, io.Stdout)
}

// export writes the image to f, and leaves f's offset behind it.
func export(ctx context.Context, im *vdisk.Image, f *os.File) error {
	if err := vdisk.Export(ctx, im, f, nil); err != nil {
		return err
	}
	_, err := f.Seek(im.Size(), io.SeekStart)
	return err
}

// begins tells whether f is a file or block device that is written from its
// start. Of one that is appended to, the kernel minds no offset.
func begins(f *os.File) bool {
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() && fi.Mode()&(os.ModeDevice|os.ModeCharDevice) != os.ModeDevice {
		return false
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_APPEND != 0 {
		return false
	}
	off, err := f.Seek(0, io.SeekCurrent)
	return err == nil && off == 0
}
