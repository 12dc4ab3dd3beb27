// Vdisk stores raw disk images in a Venti archive, gives them back, and
// serves them over 9P and NBD.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/vdisk"
	"strata/vdisk/live"
	"strata/venti"
)

func main() { suite().Main() }

func suite() *command.Suite {
	return &command.Suite{
		Name: "vdisk",
		Doc: `Disks are kept by what is in them: each partition as a tree of blocks of
its own, without the blocks that its file system says are free. SCORE is
what import prints, vdisk: and 40 hex digits, or the name of a file with
the ending .vdisk that holds it, or a snapshot of a live image. The archive is the Venti server that -h
names, or else $venti, or else ` + venti.DefaultAddr + `.

A live image is a disk that has a NAME, such as web/01, and can be written to.
It lives in the vdisk that -s names, or else $vdisk; its snapshots are web/01@SNAP.`,
		Commands: append([]command.SubCommand{
			{Name: "import", Short: "store a disk", New: importCommand},
			{Name: "export", Short: "write a stored disk to a file or device", New: exportCommand},
			{Name: "info", Short: "show the regions of a stored disk or of a file", New: infoCommand},
			{Name: "verify", Short: "read and check every block of a stored disk", New: verifyCommand},
			{Name: "fs", Short: "list, read and copy the files in a stored disk", New: fsCommand},
			{Name: "qemu", Short: "print a command line that runs a disk, or run it", New: qemuCommand},
			{Name: "serve", Short: "serve stored disks over 9P and NBD", New: serveCommand},
		}, liveCommands()...),
	}
}

// hostFlag adds the flag that says where the archive is.
func hostFlag(fs *pflag.FlagSet, host *string) {
	fs.StringVarP(host, "host", "h", "", "`address` of the Venti server: tcp!host!port, unix!/path or tls!host!port!ca=FILE!cert=FILE (default $venti)")
}

// fileFlags adds the flags that say what a disk in a file is.
func fileFlags(fs *pflag.FlagSet, opt *vdisk.FileOptions) {
	fs.StringVar(&opt.Format, "format", "", "`format` of FILE: raw, qcow2, vmdk, or another of qemu-img's")
	fs.StringVar(&opt.Backing, "backing", "", "`folder` in which files may be that a qcow2 image lies upon")
}

// withArchive runs f with a connection to the archive.
func withArchive(ctx context.Context, host string, f func(c *venti.Client) error) error {
	c, err := venti.Dial(ctx, host)
	if err != nil {
		return err
	}
	defer c.Close()
	return f(c)
}

// scoreText returns the text of a score from an argument: a score, or the
// name of a file that holds one.
func scoreText(arg string) (string, error) {
	if _, _, err := venti.ParseTypedScore(arg); err == nil || !strings.HasSuffix(arg, vdisk.ImageSuffix) {
		return arg, err
	}
	b, err := os.ReadFile(arg)
	if err != nil {
		return "", err
	}
	text, ok := vdisk.ScoreText(b)
	if !ok {
		return "", fmt.Errorf("%s: holds no score", arg)
	}
	return text, nil
}

// openImage opens the image that an argument names.
func openImage(ctx context.Context, br venti.BlockReader, arg string) (*vdisk.Image, error) {
	text, err := "", error(nil)
	if name, snap, ok := strings.Cut(arg, "@"); ok && live.CheckName(name) == nil {
		text, err = snapshotScore(ctx, name, snap)
	} else {
		text, err = scoreText(arg)
	}
	if err != nil {
		return nil, err
	}
	return vdisk.OpenText(ctx, br, text)
}

// scoreFlag reads the value of a flag that is a score, or nothing.
func scoreFlag(name, value string) (venti.Score, error) {
	if value == "" {
		return venti.Score{}, nil
	}
	text, err := scoreText(value)
	if err != nil {
		return venti.Score{}, command.Usagef("--%s: %v", name, err)
	}
	_, s, err := venti.ParseTypedScore(text)
	return s, err
}
