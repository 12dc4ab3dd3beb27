package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"9fans.net/go/plan9"
	"9fans.net/go/plan9/client"
	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/vdisk"
	"strata/venti"
)

const demoDoc = `Makes two partitioned disks with this machine's own tools: the first with an EFI
partition, an ext4 root full of this machine's files, and swap; the second the
same after a day of changes. Stores both, serves them, and reads the second one
back through a 9P client of somebody else's to check it.

The directory (default demo) is made anew; one that this command did not make is
left alone.`

func demoCommand() *command.Command {
	var dir string
	return &command.Command{
		Name:  "strata demo",
		Usage: "[-d directory]",
		Doc:   demoDoc,
		Flags: func(fs *pflag.FlagSet) {
			fs.StringVarP(&dir, "directory", "d", "demo", "where the disks and the store are made")
		},
		Run: func(ctx context.Context, io command.IO) error {
			if len(io.Args) > 0 {
				return command.ErrUsage
			}
			return demo(ctx, dir, io.Stdout, io.Stderr)
		},
	}
}

// demoMark is the file that tells a directory of ours from any other.
const demoMark = "made-by-strata-demo"

func demo(ctx context.Context, dir string, stdout, stderr io.Writer) (err error) {
	if err := freshDir(dir); err != nil {
		return err
	}
	first, second := filepath.Join(dir, "day1.img"), filepath.Join(dir, "day2.img")
	if err := makeDisks(ctx, first, second, dir, stderr); err != nil {
		return err
	}

	storeDir := filepath.Join(dir, "store")
	s, err := openSuite(ctx, storeDir, upOptions{Files: dir, Local: true, Size: 8 << 30})
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- s.serve(serving) }()
	defer func() {
		stop()
		err = errors.Join(err, <-served, s.close())
	}()

	fmt.Fprintf(stderr, "storing both in %s\n", storeDir)
	c, err := venti.Dial(ctx, s.ventiSocket())
	if err != nil {
		return err
	}
	defer c.Close()
	table := tabwriter.NewWriter(stdout, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "disk\tsize\tallocated\tfree\tsent\tshared\tstored\tseconds\tMB/s\t")
	var last *vdisk.Result
	for _, path := range []string{first, second} {
		before := s.stored()
		res, err := importFile(ctx, c, path)
		if err != nil {
			return err
		}
		t := res.Total
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%.2f\t%.0f\t\n", filepath.Base(path),
			megabytes(t.Size), megabytes(t.Allocated), megabytes(t.Free), megabytes(t.New), megabytes(t.Shared),
			megabytes(s.stored()-before), res.Seconds, float64(t.Allocated)/1e6/res.Seconds)
		name := fmt.Sprintf("%s.vdisk", path[:len(path)-len(".img")])
		if err := os.WriteFile(name, fmt.Appendf(nil, "vdisk:%v\n", res.Score), 0o644); err != nil {
			return err
		}
		last = res
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprint(stdout, `
MB of 1,000,000 bytes. allocated: not holes of the file. free: left out, since ext4 or
swap says that nothing is there. sent: new to the store. stored: what the store grew by,
compressed, with its bookkeeping.

`)
	fmt.Fprintf(stderr, "reading day2 back over 9P\n")
	if err := checkOver9P(ctx, s, last, second, dir, stdout); err != nil {
		return err
	}
	fmt.Fprintf(stdout, `
Next, serve this store until interrupted,

	bin/strata up %[1]s

and from another shell:

	export venti=%[2]s
	bin/vdisk info vdisk:%[3]v
	bin/vdisk verify vdisk:%[3]v
	bin/vdisk export vdisk:%[3]v back.img

Any 9P client finds the disk at %[4]s in /score/vdisk:%[3]v.
`, storeDir, s.ventiSocket(), last.Score, s.vdiskSocket())
	return nil
}

// freshDir makes dir, in place of one that an earlier demo made.
func freshDir(dir string) error {
	mark := filepath.Join(dir, demoMark)
	if _, err := os.Stat(mark); err == nil {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(mark, nil, 0o644)
}

func makeDisks(ctx context.Context, first, second, dir string, stderr io.Writer) error {
	work, err := os.MkdirTemp(dir, "work-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	fmt.Fprintf(stderr, "making %s: GPT, FAT, ext4 with this machine's files, swap\n", first)
	if err := makeFirstDisk(ctx, first, work); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "making %s: the same after a day of changes\n", second)
	return makeSecondDisk(ctx, second, first, work)
}

func importFile(ctx context.Context, st venti.Store, path string) (*vdisk.Result, error) {
	src, err := vdisk.OpenDisk(path)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	return vdisk.Import(ctx, st, src, vdisk.ImportOptions{})
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f", float64(n)/1e6) }

// checkOver9P reads the disk of res over 9P, with plan9's client library, into
// a file. The copy must be like the original but for free blocks, which read
// as zeros, its file system must pass e2fsck, and a file in it must be the one
// that was written.
func checkOver9P(ctx context.Context, s *suite, res *vdisk.Result, original, dir string, stdout io.Writer) error {
	began := time.Now()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", s.vdiskSocketPath())
	if err != nil {
		return err
	}
	c, err := client.NewConn(conn)
	if err != nil {
		conn.Close()
		return err
	}
	defer c.Close()
	fsys, err := c.Attach(nil, "none", "")
	if err != nil {
		return err
	}
	name := fmt.Sprintf("/score/vdisk:%v/disk", res.Score)
	fid, err := fsys.Open(name, plan9.OREAD)
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	defer fid.Close()
	copied := filepath.Join(dir, "day2-over-9p.img")
	same, zeroed, err := copyAndCompare(ctx, fid, original, copied)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintf(stdout, "%s, read over 9P: %s MB the same as %s, %s MB of free blocks now zeros, %.1f s\n",
		name, megabytes(same), filepath.Base(original), megabytes(zeroed), time.Since(began).Seconds())
	if zeroed > res.Total.Free {
		return fmt.Errorf("%d bytes read as zeros, but only %d were free", zeroed, res.Total.Free)
	}

	root := filepath.Join(dir, "root.ext4")
	defer os.Remove(root)
	if err := cutOut(root, copied, rootStart, rootSize); err != nil {
		return err
	}
	if err := tool(ctx, nil, "e2fsck", "-fn", root); err != nil {
		return err
	}
	out, err := toolCommand(ctx, "debugfs", "-R", "cat etc/passwd", root).Output()
	if err != nil {
		return fmt.Errorf("debugfs: %w", err)
	}
	if string(out) != dayTwoPasswd {
		return errors.New("etc/passwd of the copy is not what was written there on the second day")
	}
	fmt.Fprintln(stdout, "its ext4 passes e2fsck -fn, and the file that changed has its new contents")
	return os.Remove(copied)
}

// copyAndCompare copies r to the file copied, and compares it with original:
// same bytes are data in both, zeroed bytes are data only in the original.
// Any other difference is an error.
func copyAndCompare(ctx context.Context, r io.Reader, original, copied string) (same, zeroed int64, err error) {
	o, err := os.Open(original)
	if err != nil {
		return 0, 0, err
	}
	defer o.Close()
	w, err := os.Create(copied)
	if err != nil {
		return 0, 0, err
	}
	defer w.Close()
	const chunk = 4096
	got, want := make([]byte, mib), make([]byte, mib)
	zeros := make([]byte, chunk)
	var off int64
	for ctx.Err() == nil {
		n, rerr := io.ReadFull(r, got)
		if m, err := io.ReadFull(o, want[:n]); m != n {
			return 0, 0, fmt.Errorf("longer than the original: %w", err)
		}
		for i := 0; i < n; i += chunk {
			g, w2 := got[i:min(i+chunk, n)], want[i:min(i+chunk, n)]
			empty := zeros[:len(g)]
			switch {
			case bytes.Equal(g, w2) && !bytes.Equal(g, empty):
				same += int64(len(g))
				if _, err := w.WriteAt(g, off+int64(i)); err != nil {
					return 0, 0, err
				}
			case bytes.Equal(g, w2):
			case bytes.Equal(g, empty):
				zeroed += int64(len(g))
			default:
				return 0, 0, fmt.Errorf("differs from the original at %d", off+int64(i))
			}
		}
		off += int64(n)
		if rerr == io.EOF || rerr == io.ErrUnexpectedEOF {
			st, err := o.Stat()
			if err != nil {
				return 0, 0, err
			}
			if off != st.Size() {
				return 0, 0, fmt.Errorf("%d bytes, the original has %d", off, st.Size())
			}
			return same, zeroed, errors.Join(w.Truncate(off), w.Close())
		}
		if rerr != nil {
			return 0, 0, rerr
		}
	}
	return 0, 0, ctx.Err()
}

// cutOut writes length bytes of the file at from, starting at off, to path.
func cutOut(path, from string, off, length int64) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Create(path)
	if err != nil {
		return err
	}
	defer dst.Close()
	buf, zeros := make([]byte, mib), make([]byte, mib)
	for at := int64(0); at < length; at += mib {
		n := min(mib, length-at)
		if _, err := io.ReadFull(io.NewSectionReader(src, off+at, n), buf[:n]); err != nil {
			return err
		}
		if bytes.Equal(buf[:n], zeros[:n]) {
			continue
		}
		if _, err := dst.WriteAt(buf[:n], at); err != nil {
			return err
		}
	}
	return errors.Join(dst.Truncate(length), dst.Close())
}
