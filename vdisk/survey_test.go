package vdisk

import "testing"

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
	if !s.Clean(0) {
		t.Error("a new file system is not clean")
	}
	if n := free(look(true)); n != 0 {
		t.Errorf("%d bytes are free where every byte is asked for", n)
	}
	run(t, "", "debugfs", "-w", "-R", "feature needs_recovery", img)
	if look(false).Clean(0) {
		t.Error("one that needs recovery is clean")
	}
}
