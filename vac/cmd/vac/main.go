// Vac stores trees of files in a Venti archive, see vac(1).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"strata/internal/command"
	"strata/vac"
	"strata/venti"
)

func main() {
	debug.SetGCPercent(400) // a short life, most of it with small buffers: a third less work
	newCommand().Main()
}

const doc = `Stores files and directories in a Venti server and prints the score of the
archive, vac: and 40 hex digits, when all is on the server's disk.

An argument is stored under its last element; of /, . and .. what is in them is
stored. Names are taken in the order of their bytes. Symbolic links are stored,
not followed. Files that cannot be read are told of; the others are stored, the
score is printed, and the exit status is 1. A file that vanishes or changes
while it is read is told of, too, but not counted as a failure.

A pattern of -e or -x is for the whole path: * is any run of characters and ?
one, but neither is / nor, at the start of an element, a dot; ... is any run,
/ too; [a-z] and [~a-z] are classes. A FILE of -x has lines "exclude PATTERN"
and "include PATTERN", and comments after #. The first pattern that matches
decides.

With -q a file is not read, and taken to be what it was, if the older archive
has it with the same size, time of change (mtime), time of change of the inode
(ctime, to the nanosecond) and inode number. An archive by plan9port's vac has
neither of the last two: there ctime must lie before the time that the archive
has for the file, which is when it was stored.

The format has no place for sockets (left out), for extended attributes and
fractions of seconds (lost), and for hard links (each name is a file of its own,
its blocks are stored once). What a run has met of these it says at its end,
fractions only with -s or -v.

Unlike plan9port's vac, this one stores the whole target of a symbolic link
(not 8 bytes), the permissions of a link itself, set-id and sticky bits, device
numbers of any size, and the file's own ctime (not the time of the run), so the
same tree gives the same score. Days of -a have qids of their own. It prints no
score of zeros: without an archive there is no output and the exit status is 1.
--plan9port makes the other one's archive, links and devices excepted, as if its
clock stood at TIME (seconds since 1970).`

type options struct {
	vac.Options
	host, output, archive, old string
	blockSize                  string
	stats, verbose             bool
	plan9port                  string
}

func newCommand() *command.Command {
	o := new(options)
	return &command.Command{
		Name: "vac", Usage: "[-imqsv] [-a archive.vac] [-b blocksize] [-d old.vac] [-e pattern]... [-f new.vac] [-h host] [-x file]... file...", Doc: doc,
		Flags: func(fs *pflag.FlagSet) {
			fs.StringVarP(&o.archive, "archive", "a", "", "add to this `archive`, as yyyy/mmdd, and compare with the day before")
			fs.StringVarP(&o.blockSize, "block-size", "b", "", "`bytes` of a block, k for 1024: 512 to 56k (default 8k)")
			fs.StringVarP(&o.old, "diff", "d", "", "send only what this `archive` lacks")
			fs.VarP(pattern{&o.Filter}, "exclude", "e", "leave out files that match `pattern`")
			fs.StringVarP(&o.output, "file", "f", "", "put the score into this `file`")
			fs.StringVarP(&o.host, "host", "h", "", "`address` of the server: tcp!host!port, unix!/path or tls!host!port!ca=FILE!cert=FILE (default $venti)")
			fs.StringVarP(&o.StdinName, "stdin", "i", "", "store the standard input as a file called `name`")
			fs.BoolVarP(&o.Merge, "merge", "m", false, "put what the archives called *.vac hold in their places")
			fs.BoolVarP(&o.Quick, "quick", "q", false, "with -a or -d, do not read files that seem unchanged")
			fs.BoolVarP(&o.stats, "statistics", "s", false, "print counts")
			fs.BoolVarP(&o.verbose, "verbose", "v", false, "print the name of each file")
			fs.VarP(patternFile{&o.Filter}, "exclude-file", "x", "take patterns from `file`")
			fs.StringVar(&o.plan9port, "plan9port", "", "make plan9port's archive, as at `time` (default now)")
			fs.Lookup("plan9port").NoOptDefVal = "now"
		},
		Run: func(ctx context.Context, io command.IO) error { return run(ctx, io, o) },
	}
}

// A pattern is the flag -e.
type pattern struct{ f *vac.Filter }

func (p pattern) Set(text string) error { return p.f.Exclude(text) }
func (p pattern) String() string        { return "" }
func (p pattern) Type() string          { return "pattern" }

// A patternFile is the flag -x.
type patternFile struct{ f *vac.Filter }

func (p patternFile) Set(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := p.f.Read(f); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
func (p patternFile) String() string { return "" }
func (p patternFile) Type() string   { return "file" }

// parseSize reads a block size.
func parseSize(text string) (int, error) {
	unit := 1
	if n := len(text); n > 0 && (text[n-1] == 'k' || text[n-1] == 'K') {
		text, unit = text[:n-1], 1024
	}
	n, err := strconv.Atoi(text)
	if err != nil || n > venti.MaxBlockSize || n*unit < vac.MinBlockSize || n*unit > venti.MaxBlockSize {
		return 0, command.Usagef("block size must be from %d to %d", vac.MinBlockSize, venti.MaxBlockSize)
	}
	return n * unit, nil
}

// check completes the options.
func (o *options) check(args []string) (err error) {
	switch {
	case len(args) == 0 && o.StdinName == "":
		return command.ErrUsage
	case o.archive != "" && (o.old != "" || o.output != ""):
		return command.Usagef("-a goes with neither -d nor -f")
	case o.Quick && o.archive == "" && o.old == "":
		return command.Usagef("-q needs -a or -d")
	case o.StdinName != "" && !vac.ValidName(o.StdinName):
		return command.Usagef("-i: %q is no name of a file", o.StdinName)
	}
	if o.blockSize != "" {
		if o.BlockSize, err = parseSize(o.blockSize); err != nil {
			return err
		}
	}
	if o.plan9port != "" {
		o.Plan9port = true
		if o.plan9port != "now" {
			n, err := strconv.ParseInt(o.plan9port, 10, 64)
			if err != nil {
				return command.Usagef("--plan9port: %q is no number of seconds", o.plan9port)
			}
			o.Now = time.Unix(n, 0)
		}
	}
	return nil
}

func run(ctx context.Context, io command.IO, o *options) error {
	if err := o.check(io.Args); err != nil {
		return err
	}
	if o.StdinName != "" {
		o.Stdin = io.Stdin
	}
	out := o.output
	if o.archive != "" {
		lock, err := lockArchive(o.archive)
		if err != nil {
			return err
		}
		defer lock.Close()
		out = o.archive
	}
	if out != "" {
		// Better to know now than after an hour's work.
		if err := writeScore(out, nil); err != nil {
			return err
		}
	}
	st, err := venti.Dial(ctx, o.host)
	if err != nil {
		return err
	}
	defer st.Close()
	if err := o.open(ctx, io, st); err != nil {
		return err
	}
	tell, stop := command.StartBar(io.Stderr, "storing", -1)
	defer stop()
	o.Progress = tell
	o.Warn = func(err error) { stop(); fmt.Fprintf(io.Stderr, "vac: %v\n", err) }
	if o.verbose {
		o.Trace = func(line string) { stop(); fmt.Fprintln(io.Stderr, line) }
	}
	r, err := vac.Store(ctx, st, io.Args, o.Options)
	stop()
	if err != nil {
		return err
	}
	text := vac.FormatScore(r.Score) + "\n"
	if out != "" {
		err = writeScore(out, []byte(text))
	} else {
		_, err = io.Stdout.Write([]byte(text))
	}
	if err != nil {
		return err
	}
	report(io.Stderr, &r, o)
	if r.Failed > 0 {
		return fmt.Errorf("%d files could not be stored; the archive has the others", r.Failed)
	}
	return nil
}

// open opens the older archives.
func (o *options) open(ctx context.Context, io command.IO, st *venti.Client) error {
	if o.archive != "" {
		o.Daily = true
		if info, err := os.Stat(o.archive); err != nil || info.Size() == 0 {
			return err // a new one
		}
		score, err := vac.FindScore(o.archive)
		if err == nil {
			o.Append, err = vac.Open(ctx, st, score)
		}
		return err
	}
	if o.old == "" {
		return nil
	}
	score, err := vac.FindScore(o.old)
	if err == nil {
		o.Diff, err = vac.Open(ctx, st, score)
	}
	if err != nil && ctx.Err() == nil { // all is sent; nothing is lost
		fmt.Fprintf(io.Stderr, "vac: nothing to compare with: %v\n", err)
		o.Quick = false
		return nil
	}
	return err
}

// lockArchive opens a file that only one vac may add to, and makes it if it
// does not exist.
func lockArchive(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: another vac adds to it", name)
	}
	return f, nil
}

// writeScore puts text in the place of a file, at once and durably. Without a
// text it tries whether that will work.
func writeScore(name string, text []byte) (err error) {
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		if text == nil {
			return nil
		}
		return os.WriteFile(name, text, 0o666) // a device, a pipe
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".vac-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if text == nil {
		return f.Close()
	}
	mode := os.FileMode(0o644)
	if info, err := os.Stat(name); err == nil {
		mode = info.Mode().Perm()
	}
	_, werr := f.Write(text)
	if err := errors.Join(werr, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// report prints counts, and what the archive lacks for want of a place.
func report(w io.Writer, r *vac.Result, o *options) {
	if o.stats {
		fmt.Fprintf(w, "%d files, %d files skipped, %d directories\n", r.Files, r.Skipped, r.Dirs)
		fmt.Fprintf(w, "%d data bytes written, %d data bytes skipped\n", r.Written, r.Known)
	}
	for _, l := range []struct {
		n    int64
		what string
		show bool
	}{
		{r.Lost.Sockets, "sockets, which are left out", true},
		{r.Lost.Xattrs, "files with extended attributes, which are not stored", true},
		{r.Lost.Links, "names of files with several, each stored as a file of its own", true},
		{r.Lost.Fractions, "files whose mtime is not a whole second, which it is in the archive", o.stats || o.verbose},
	} {
		if l.n > 0 && l.show {
			fmt.Fprintf(w, "vac: %d %s\n", l.n, l.what)
		}
	}
}
