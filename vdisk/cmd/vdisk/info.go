package main

import (
	"context"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/vdisk"
	"strata/venti"
)

const infoDoc = `Show how a disk is cut into regions and what they hold: of a stored disk, or
of the image in FILE as import would cut it, without storing anything.`

func infoCommand() *command.Command {
	var host string
	var json bool
	var file vdisk.FileOptions
	return &command.Command{
		Name: "vdisk info", Usage: "[-h address] [-j] [--format format] SCORE|FILE", Doc: infoDoc,
		Flags: func(fs *pflag.FlagSet) {
			hostFlag(fs, &host)
			fileFlags(fs, &file)
			fs.BoolVarP(&json, "json", "j", false, "print layout.json")
		},
		Run: func(ctx context.Context, io command.IO) error {
			if len(io.Args) != 1 {
				return command.ErrUsage
			}
			show := func(l *vdisk.Layout) error {
				if !json {
					return l.WriteInfo(io.Stdout)
				}
				b, err := l.Encode()
				if err == nil {
					_, err = io.Stdout.Write(b)
				}
				return err
			}
			if _, err := scoreText(io.Args[0]); err != nil {
				disk, err := vdisk.OpenFile(ctx, io.Args[0], file)
				if err != nil {
					return err
				}
				defer disk.Close()
				l, err := vdisk.Inspect(disk)
				if err != nil {
					return err
				}
				return show(l)
			}
			return withArchive(ctx, host, func(st *venti.Client) error {
				im, err := openImage(ctx, st, io.Args[0])
				if err != nil {
					return err
				}
				if json {
					return show(im.Layout())
				}
				return im.WriteInfo(io.Stdout)
			})
		},
	}
}
