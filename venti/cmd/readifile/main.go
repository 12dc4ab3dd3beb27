// Readifile prints a configuration as the other programs see it.
package main

import (
	"context"

	"strata/internal/command"
	"strata/internal/disk"
	"strata/venti/internal/config"
	"strata/venti/internal/ventitool"
)

func main() { newCommand().Main() }

func newCommand() *command.Command {
	return &command.Command{
		Name: "venti/readifile", Usage: "file",
		Doc: `Prints the configuration in a file, or embedded in a partition, and complains
if it is none.`,
		Run: func(_ context.Context, io command.IO) error {
			if len(io.Args) != 1 {
				return command.ErrUsage
			}
			f, err := disk.Open(io.Args[0], ventitool.Live)
			if err != nil {
				return err
			}
			defer f.Close()
			text, err := config.Text(f, io.Args[0])
			if err != nil {
				return err
			}
			if _, err := io.Stdout.Write(text); err != nil {
				return err
			}
			_, err = config.Read(f, io.Args[0])
			return err
		},
	}
}
