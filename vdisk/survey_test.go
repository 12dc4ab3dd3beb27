package vdisk

import (
	"io"
	"testing"
)

// TestSurvey tells what is free on a disk, and that nobody has it mounted.
func TestSurvey(t *testing.T) {
	img := extImage(t, 24*mib, tree(t, 1, 3*mib), "-t", "ext4", "-b", "4096")
	look := func(exact bool) *Survey {
		t.Helper()
		d, err := OpenDisk(img)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		s, err := NewSurvey(d, exact)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	free := func(s *Survey) (n int64) {
		end := int64(-1)
		for x := range s.Free(0) {
			if x.Off <= end || x.End() > 24*mib {
				t.Errorf("free extent %+v after %d", x, end)
			}
			end = x.End()
			n += x.Len
		}
		return n
	}
	s := look(false)
	if n := free(s); n < 15*mib || n > 21*mib {
		t.Errorf("%d bytes are free", n)
	}
	if n := data(t, s.Source(0)); n < 3*mib || n > 9*mib {
		t.Errorf("%d bytes of the region are stored", n)
	}
	if !s.Clean(0) {
		t.Error("a new file system is not clean")
	}
	exact := look(true)
	if n := free(exact); n != 0 {
		t.Errorf("%d bytes are free where every byte is asked for", n)
	}
	if a, b := data(t, exact.Source(0)), data(t, s.Source(0)); a < b {
		t.Errorf("with every byte %d are stored, without what is free %d", a, b)
	}
	run(t, "", "debugfs", "-w", "-R", "feature needs_recovery", img)
	if look(false).Clean(0) {
		t.Error("one that needs recovery is clean")
	}
}

// data returns how many bytes of a source are not holes.
func data(t *testing.T, src Source) (n int64) {
	t.Helper()
	for off := int64(0); ; {
		start, end, err := src.NextData(off)
		if err == io.EOF {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		n += end - start
		off = end
	}
}
