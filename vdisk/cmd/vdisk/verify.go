package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/vdisk"
	"strata/venti"
)

const verifyDoc = `Read every block of the disk that SCORE names and check it against its score,
and print how many there are. Each one that is missing or wrong is printed with
its region, how many bytes it takes with it and where; then the exit status is
1. With --against the disk is also compared with the image in FILE, which must be
what an import of FILE would keep.`

type verifier struct {
	host, against string
	file          vdisk.FileOptions
	json          bool
}

func verifyCommand() *command.Command {
	var c verifier
	return &command.Command{
		Name: "vdisk verify", Usage: "[-h address] [-j] [--against FILE] SCORE", Doc: verifyDoc,
		Flags: func(fs *pflag.FlagSet) {
			hostFlag(fs, &c.host)
			fs.StringVarP(&c.against, "against", "a", "", "image `file` to compare with")
			fileFlags(fs, &c.file)
			fs.BoolVarP(&c.json, "json", "j", false, "print JSON")
		},
		Run: c.run,
	}
}

func (c *verifier) run(ctx context.Context, io command.IO) error {
	if len(io.Args) != 1 {
		return command.ErrUsage
	}
	return withArchive(ctx, c.host, func(st *venti.Client) error {
		im, err := openImage(ctx, st, io.Args[0])
		if err != nil {
			return err
		}
		tell, stop := command.StartBar(io.Stderr, "verifying", im.Size())
		rep, err := vdisk.Verify(ctx, st, im.Score(), tell)
		stop()
		if err != nil {
			return err
		}
		if err := c.report(io, "blocks are missing or wrong", rep); err != nil || c.against == "" {
			return err
		}
		disk, err := vdisk.OpenFile(ctx, c.against, c.file)
		if err != nil {
			return err
		}
		defer disk.Close()
		if rep, err = vdisk.Compare(ctx, im, disk); err != nil {
			return err
		}
		return c.report(io, "pieces differ from "+c.against, rep)
	})
}

// report prints what was found. The error says that it was not good.
func (c *verifier) report(io command.IO, what string, rep *vdisk.Report) error {
	if c.json {
		e := json.NewEncoder(io.Stdout)
		e.SetIndent("", " ")
		if err := e.Encode(rep); err != nil {
			return err
		}
	} else {
		for _, f := range rep.Failures {
			fmt.Fprintf(io.Stdout, "bad %s %d %d %s\n", f.Region, f.Offset, f.Length, f.Reason)
		}
		if _, err := fmt.Fprintf(io.Stdout, "good %d blocks %d bytes\n", rep.Blocks, rep.Bytes); err != nil {
			return err
		}
	}
	if rep.Failed > 0 {
		return fmt.Errorf("%d %s", rep.Failed, what)
	}
	return nil
}
