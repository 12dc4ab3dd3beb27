package main

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"strata/internal/ninep"
	"strata/vdisk"
)

// TestUpImages lives with a disk: it is made, written to, kept, cloned, rolled
// back and found again after a stop.
func TestUpImages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s, down := up(t, dir, upOptions{})
	attach := func() *ninep.File {
		t.Helper()
		conn, err := net.Dial("unix", s.vdiskSocketPath())
		if err != nil {
			t.Fatal(err)
		}
		c, err := ninep.NewClient(t.Context(), conn, ninep.ClientConfig{Dialect: ninep.Linux})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		root, err := c.Attach(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		return root
	}
	open := func(path string, mode ninep.OpenMode) *ninep.File {
		t.Helper()
		f, err := attach().Walk(t.Context(), strings.Split(path, "/")...)
		if err == nil {
			err = f.Open(t.Context(), mode)
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		return f
	}
	tell := func(line string) string {
		t.Helper()
		f := open("ctl", ninep.ORDWR)
		defer f.Close(t.Context())
		if _, err := f.WriteAt(t.Context(), []byte(line), 0); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		b := make([]byte, 64<<10)
		n, err := f.ReadAt(t.Context(), b, 0)
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	read := func(path string) []byte {
		t.Helper()
		f := open(path, ninep.OREAD)
		defer f.Close(t.Context())
		var all []byte
		for b, err := range f.Stream(t.Context(), 0) {
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			all = append(all, b...)
		}
		return all
	}
	want := make([]byte, 8<<20)
	rand.NewChaCha8([32]byte{1}).Read(want[3<<20 : 5<<20])
	write := func() {
		t.Helper()
		f := open("images/web/01/disk", ninep.ORDWR)
		if _, err := f.WriteAt(t.Context(), want, 0); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	tell("create web/01 8m")
	write()
	first := bytes.Clone(want)
	score := strings.Fields(tell("snap web/01 first"))[1]
	res, err := vdisk.Import(t.Context(), s.store, rawDisk(want), vdisk.ImportOptions{})
	if err != nil || score != "vdisk:"+res.Score.String() {
		t.Errorf("the score is %s, that of an import %v, %v", score, res.Score, err)
	}
	rand.NewChaCha8([32]byte{2}).Read(want[4<<20 : 6<<20])
	write()
	tell("clone web/01@first db")
	tell("clone web/01 web/02")
	tell("rollback web/01 first")
	down()

	s, down = up(t, dir, upOptions{})
	defer down()
	for path, disk := range map[string][]byte{
		"images/web/01/disk": first, "images/web/02/disk": want, "images/db/disk": first,
		"images/web/01/tag/first/disk": first, "score/" + score + "/disk": first,
	} {
		if !bytes.Equal(read(path), disk) {
			t.Errorf("%s is another disk", path)
		}
	}
	if got := tell("ls"); got != "db\nweb/01\nweb/02\n" {
		t.Errorf("ls: %q", got)
	}
	// A nightly one comes whenever the first minute is over.
	log := tell("log web/01")
	if got := strings.Count(log, "\n") - strings.Count(log, " nightly "); got != 3 {
		t.Errorf("log has %d lines that were asked for: %s", got, log)
	}
}

// A rawDisk is a disk in memory.
type rawDisk []byte

func (b rawDisk) Size() int64                             { return int64(len(b)) }
func (b rawDisk) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(b).ReadAt(p, off) }
func (b rawDisk) NextData(off int64) (start, end int64, err error) {
	if off >= int64(len(b)) {
		return 0, 0, io.EOF
	}
	return off, int64(len(b)), nil
}
