// Printarenapart lists the arenas of a partition, see venti-fmt(8).
package main

import (
	"context"
	"fmt"
	stdio "io"
	"strings"
	"time"

	"strata/internal/command"
	"strata/venti/internal/arena"
	"strata/venti/internal/ventitool"
)

func main() { newCommand().Main() }

func newCommand() *command.Command {
	return &command.Command{
		Name: "venti/printarenapart", Usage: "file",
		Doc: `Lists the arenas of a partition: where each starts, what its trailer counts and
when it was first and last written. A server may run meanwhile.`,
		Run: func(ctx context.Context, io command.IO) error {
			if len(io.Args) != 1 {
				return command.ErrUsage
			}
			as, err := ventitool.Open(io.Args[0], ventitool.Live, nil)
			if err != nil {
				return err
			}
			defer as.File.Close()
			if as.Part == nil {
				return fmt.Errorf("%s: it is one arena, no partition", io.Args[0])
			}
			ventitool.WriteHead(io.Stdout, as.Part)
			for _, a := range as.List {
				t, err := a.ReadTrailer()
				if err != nil {
					return err
				}
				print(io.Stdout, a, &t)
			}
			for _, err := range as.Bad {
				fmt.Fprintln(io.Stderr, err)
			}
			if len(as.Bad) > 0 {
				return fmt.Errorf("%s: %d damaged arenas: see venti/fixarenas", io.Args[0], len(as.Bad))
			}
			return nil
		},
	}
}

func print(w stdio.Writer, a *arena.Arena, t *arena.Trailer) {
	sealed := ""
	if t.Disk.Sealed {
		sealed = " sealed"
	}
	date := func(sec uint32) string {
		s := time.Unix(int64(sec), 0).Format("Mon Jan _2 15:04:05 MST 2006")
		return strings.Replace(s, " UTC ", " GMT ", 1) // as ctime(3) of Plan 9's programs has it
	}
	fmt.Fprintf(w, "arena %s %d clumps=%s cclumps=%s used=%s uncsize=%s%s\n\tctime=%s\n\tmtime=%s\n", a.Name, a.Start,
		command.Commas(int64(t.Disk.Clumps)), command.Commas(int64(t.Disk.CClumps)), command.Commas(t.Disk.Used),
		command.Commas(t.Disk.UncSize), sealed, date(t.CTime), date(t.WTime))
}
