// Unvac lists and extracts the files of an archive, see vac(1).
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"time"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/vac"
	"strata/venti"
	"strata/venti/hashtree"
)

func main() {
	debug.SetGCPercent(400) // a short life, most of it with small buffers: a third less work
	newCommand().Main()
}

const doc = `Extracts the files of an archive, which is a score, vac: and 40 hex digits, or a
file that begins with one, into the current directory. With arguments after it
it takes only the files that they name, with all below; they are paths in the
archive or patterns as of vac -e.

What is there already is replaced; directories are reused. Nothing is written
outside the directory, and no symbolic link is followed, whatever the archive
says. What cannot be restored is told of; the rest is restored, and the exit
status is 1. Blocks of zeros become holes.

Modes go through the umask and set-id bits are dropped, unless -p is given, which
restores owners, too. Devices are made only with --devices.

-r goes on where a run that was interrupted (not by a crash of the system) has
ended: it sets times, as -T does, and leaves alone files that have the size and
time of change of the archive's. -d trusts nothing: it compares the blocks of
files that are there with their scores, and reads and writes those that differ.

Unlike plan9port's unvac, this one restores symbolic links, pipes and names of
any bytes. A link in an archive by plan9port's vac whose target is longer than 8
bytes has lost the rest: that is an error.`

type options struct {
	vac.ExtractOptions
	host                      string
	into                      string
	list, cat, stats, verbose bool
}

func newCommand() *command.Command {
	o := new(options)
	return &command.Command{
		Name: "unvac", Usage: "[-Tcdprstv] [-C dir] [-h host] [--devices] archive [file...]", Doc: doc,
		Flags: func(fs *pflag.FlagSet) {
			fs.StringVarP(&o.into, "directory", "C", ".", "extract into this `directory`, which is made if need be")
			fs.BoolVarP(&o.Times, "times", "T", false, "set times of change and access")
			fs.BoolVarP(&o.cat, "stdout", "c", false, "write the contents to the standard output")
			fs.BoolVarP(&o.Update, "diff", "d", false, "compare files by block, and read only what differs")
			fs.BoolVar(&o.Devices, "devices", false, "make devices")
			fs.StringVarP(&o.host, "host", "h", "", "`address` of the server: tcp!host!port, unix!/path or tls!host!port!ca=FILE!cert=FILE (default $venti)")
			fs.BoolVarP(&o.Owners, "preserve", "p", false, "restore owner, group and all bits of the mode")
			fs.BoolVarP(&o.Resume, "resume", "r", false, "leave alone files that are there already, and set times")
			fs.BoolVarP(&o.stats, "statistics", "s", false, "print counts")
			fs.BoolVarP(&o.list, "list", "t", false, "list the files instead")
			fs.BoolVarP(&o.verbose, "verbose", "v", false, "print names, or with -t all that is known")
		},
		Run: func(ctx context.Context, io command.IO) error { return run(ctx, io, o) },
	}
}

func run(ctx context.Context, io command.IO, o *options) error {
	switch {
	case len(io.Args) == 0:
		return command.ErrUsage
	case o.cat && (o.list || o.Update || o.Resume):
		return command.Usagef("-c goes with none of -d, -r and -t")
	case o.Resume && o.Update:
		return command.Usagef("-r does not go with -d")
	}
	score, err := vac.FindScore(io.Args[0])
	if err != nil {
		return err
	}
	if len(io.Args) > 1 {
		if o.Select, err = vac.NewSelection(io.Args[1:]); err != nil {
			return command.Usagef("%v", err)
		}
	}
	st, err := venti.Dial(ctx, o.host)
	if err != nil {
		return err
	}
	defer st.Close()
	a, err := vac.Open(ctx, st, score)
	if err != nil {
		return err
	}
	var failed int64
	o.Warn = func(err error) { fmt.Fprintf(io.Stderr, "unvac: %v\n", err) }
	switch {
	case o.list, o.cat:
		out := bufio.NewWriterSize(io.Stdout, 64<<10)
		w := walker{o: o, out: out, stderr: io.Stderr}
		err = errors.Join(w.walk(ctx, a.Root, o.Select == nil), out.Flush())
		failed = w.failed
	default:
		var r vac.ExtractResult
		r, err = extract(ctx, io, a, o)
		failed = r.Failed
	}
	if err != nil {
		return err
	}
	if o.Select != nil {
		for _, name := range o.Select.Missing() {
			o.Warn(fmt.Errorf("didn't find %s", name))
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d errors", failed)
	}
	return nil
}

func extract(ctx context.Context, io command.IO, a *vac.Archive, o *options) (vac.ExtractResult, error) {
	tell, stop := command.StartBar(io.Stderr, "extracting", -1)
	defer stop()
	o.Progress = tell
	warn := o.Warn
	o.Warn = func(err error) { stop(); warn(err) }
	if o.verbose {
		o.Trace = func(f *vac.File) { stop(); fmt.Fprintln(io.Stderr, name(f)) }
	}
	r, err := vac.Extract(ctx, a.Root, o.into, o.ExtractOptions)
	stop()
	if o.stats {
		fmt.Fprintf(io.Stderr, "%d files, %d directories, %d bytes read, %d bytes skipped\n", r.Files, r.Dirs, r.Read, r.Skipped)
	}
	return r, err
}

// name returns the path of a file, with a slash behind it if it is a
// directory.
func name(f *vac.File) string {
	if f.IsDir() {
		return f.Path() + "/"
	}
	return f.Path()
}

// A walker lists files, or writes their contents, in the order of the
// archive.
type walker struct {
	o      *options
	out    *bufio.Writer
	stderr io.Writer
	failed int64
}

// walk goes through a directory. Its error is one of ctx or the output.
func (w *walker) walk(ctx context.Context, dir *vac.File, all bool) error {
	for f, err := range dir.ReadDir(ctx) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			w.fail(err)
			continue
		}
		selected := all || w.o.Select.Match(f.Path())
		if selected {
			if err := w.show(ctx, f); err != nil {
				return err
			}
		}
		if f.IsDir() && (selected || w.o.Select.Below(f.Path())) {
			if err := w.walk(ctx, f, selected); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *walker) fail(err error) {
	w.o.Warn(err)
	w.failed++
}

func (w *walker) show(ctx context.Context, f *vac.File) error {
	switch {
	case w.o.list && w.o.verbose:
		t := time.Unix(int64(f.Mtime), 0).Format("2006-01-02 15:04")
		_, err := fmt.Fprintf(w.out, "%v %-10s %-10s %11d %s %s\n", f.Mode, f.UID, f.GID, f.Size(), t, f.Path())
		return err
	case w.o.list:
		_, err := fmt.Fprintln(w.out, name(f))
		return err
	case w.o.verbose:
		fmt.Fprintln(w.stderr, name(f))
	}
	if !f.Mode.IsRegular() {
		return nil
	}
	r, err := f.Open(hashtree.ReaderConfig{})
	if err != nil {
		w.fail(err)
		return nil
	}
	out := &output{w: w.out}
	if _, err := r.Stream(ctx, out); out.err != nil || ctx.Err() != nil {
		return errors.Join(out.err, ctx.Err())
	} else if err != nil {
		w.fail(fmt.Errorf("%s: %w", f.Path(), err))
	}
	return nil
}

// An output remembers that it failed.
type output struct {
	w   io.Writer
	err error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	o.err = err
	return n, err
}
