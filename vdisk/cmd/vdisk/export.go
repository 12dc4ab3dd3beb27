package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/vdisk"
	"strata/venti"
)

const exportDoc = `Write the disk that SCORE names to FILE: as a qcow2 image if FILE is named so,
or --format says so, and else raw. Blocks of zeros become holes.
What is in FILE already is only overwritten with --force; a block device
needs it too, and gets zeros where the disk has them. With - for FILE the disk
is written to the standard output, every byte of it.`

type exporter struct {
	host, format string
	force        bool
}

func exportCommand() *command.Command {
	var c exporter
	return &command.Command{
		Name: "vdisk export", Usage: "[-h address] [-f] [--format format] SCORE FILE|-", Doc: exportDoc,
		Flags: func(fs *pflag.FlagSet) {
			hostFlag(fs, &c.host)
			fs.StringVar(&c.format, "format", "", "`format` of FILE: raw or qcow2 (default: by the ending of its name)")
			fs.BoolVarP(&c.force, "force", "f", false, "overwrite what is in FILE")
		},
		Run: c.run,
	}
}

func (c *exporter) run(ctx context.Context, io command.IO) error {
	if len(io.Args) != 2 {
		return command.ErrUsage
	}
	switch {
	case c.format == "" && strings.HasSuffix(io.Args[1], ".qcow2"):
		c.format = "qcow2"
	case c.format == "":
		c.format = "raw"
	case c.format != "raw" && c.format != "qcow2":
		return command.Usagef("--format is raw or qcow2")
	case c.format == "qcow2" && io.Args[1] == "-":
		return command.Usagef("a qcow2 image is not written from front to back: it needs a FILE")
	}
	return withArchive(ctx, c.host, func(st *venti.Client) error {
		im, err := openImage(ctx, st, io.Args[0])
		if err != nil {
			return err
		}
		if io.Args[1] == "-" {
			return vdisk.Stream(ctx, im, io.Stdout)
		}
		return c.export(ctx, im, io)
	})
}

func (c *exporter) export(ctx context.Context, im *vdisk.Image, io command.IO) (err error) {
	f, made, err := c.create(io.Args[1])
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil && made {
			// Half a disk is worse than none.
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	tell, stop := command.StartBar(io.Stderr, "writing", im.Size())
	defer stop()
	if c.format == "qcow2" {
		return vdisk.ExportQcow2(ctx, im, f, tell)
	}
	return vdisk.Export(ctx, im, f, tell)
}

// create opens the file to be written; made tells that it was not there.
func (c *exporter) create(name string) (f *os.File, made bool, err error) {
	f, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err == nil {
		return f, true, nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return nil, false, err
	}
	// The file is looked at before it is opened: opening some devices does
	// something.
	fi, err := os.Stat(name)
	if err != nil {
		return nil, false, err
	}
	device := fi.Mode()&os.ModeDevice != 0 && fi.Mode()&os.ModeCharDevice == 0
	switch {
	case !fi.Mode().IsRegular() && !device:
		return nil, false, fmt.Errorf("%s: neither a regular file nor a block device", name)
	case !c.force && device:
		return nil, false, fmt.Errorf("%s: is a device; --force overwrites it", name)
	case !c.force && fi.Size() > 0:
		return nil, false, fmt.Errorf("%s: exists and is not empty; --force overwrites it", name)
	}
	f, err = os.OpenFile(name, os.O_RDWR, 0)
	return f, false, err
}
