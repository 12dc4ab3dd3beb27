package qemu

import "testing"

// TestFault looks at logs with and without what is a fault.
func TestFault(t *testing.T) {
	const known = "[ 1.0] ------------[ cut here ]------------\n[ 1.0] WARNING: CPU: 0 PID: 229 at fs/inode.c:336 drop_nlink+0x29/0x40\n" +
		"[ 1.0] Call Trace:\n[ 1.0]  v9fs_remove+0x178/0x240 [9p]\n[ 1.0] ---[ end trace 0000000000000000 ]---\n"
	const other = "[ 2.0] ------------[ cut here ]------------\n[ 2.0] WARNING: CPU: 0 PID: 230 at fs/9p/vfs_inode.c:1\n" +
		"[ 2.0] Call Trace:\n[ 2.0]  v9fs_remove+0x178/0x240 [9p]\n[ 2.0] ---[ end trace 0000000000000000 ]---\n"
	for _, tc := range []struct {
		name, log string
		bad       bool
	}{
		{"quiet", "[ 0.1] 9p: Installing v9fs\n", false},
		{"known", known, false},
		{"known twice", "x\n" + known + known + "y\n", false},
		{"other", other, true},
		{"other after known", known + other, true},
		{"known after other", other + known, true},
		{"known and a panic", known + "Kernel panic - not syncing\n", true},
		{"cut off", known[:len(known)-60], true},
	} {
		if err := fault(tc.log); (err != nil) != tc.bad {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}
