package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"strata/vdisk"
	"strata/venti/ventitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noise makes a file of n bytes, no two blocks of them equal.
func noise(t *testing.T, n int) string {
	t.Helper()
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * (i>>12 + 3) >> 3)
	}
	name := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(name, b, 0o666); err != nil {
		t.Fatal(err)
	}
	return name
}

// A ticker's clock goes on by a second each time that it is looked at.
func ticker() func() time.Time {
	now := time.Date(2026, 11, 22, 20, 37, 0, 5e6, time.UTC)
	var mu sync.Mutex
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(time.Second)
		return now
	}
}

func vbackup(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, msg bytes.Buffer
	status = backup(ticker()).Execute(t.Context(), args, strings.NewReader(""), &out, &msg)
	return status, out.String(), msg.String()
}

func TestVbackup(t *testing.T) {
	st := ventitest.NewMemory()
	host := ventitest.Serve(t, st)
	disk := noise(t, 300001)

	status, dry, msg := vbackup(t, "-h", host, "-n", "-m", "my host", "-M", "/mnt/a b/", disk)
	if status != 0 || msg != "" {
		t.Fatalf("-n: status %d, %s", status, msg)
	}
	if n := st.Len(); n != 0 {
		t.Fatalf("-n stores %d blocks", n)
	}
	status, out, msg := vbackup(t, "-h", host, "-m", "my host", "-M", "/mnt/a b/", "-fi", "-w", "2", "-v", "-s", "1", disk)
	if status != 0 {
		t.Fatalf("status %d, %s", status, msg)
	}
	for _, s := range []string{"# 2026/1122 20:37:0", "/300001\n", "blocks of 300001 bytes sent"} {
		if !strings.Contains(msg, s) {
			t.Errorf("messages: no %q in\n%s", s, msg)
		}
	}
	words := strings.Fields(out)
	if len(words) < 3 {
		t.Fatalf("printed %q", out)
	}
	score := words[2]
	want := "mount /my_host/2026/1122/mnt/a_b " + score + " 2026/1122/2037\n# 2026/1122 20:37:0"
	if !strings.HasPrefix(out, want) || !strings.HasSuffix(out, " "+disk+" "+score+"\n") {
		t.Errorf("printed\n%s\nwant\n%s...", out, want)
	}
	if got := strings.Fields(dry)[2]; got != score {
		t.Errorf("-n prints %s, then it is %s", got, score)
	}
	im, err := vdisk.OpenText(t.Context(), st, score)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 300001)
	if _, err := im.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if want, err := os.ReadFile(disk); err != nil || !bytes.Equal(got, want) {
		t.Errorf("what is stored differs, %v", err)
	}

	status, out, msg = vbackup(t, "-h", host, "-v", disk, score)
	if status != 0 || !strings.Contains(msg, " 0 blocks of 0 bytes sent") {
		t.Fatalf("again: status %d, %s", status, msg)
	}
	im, err = vdisk.OpenText(t.Context(), st, strings.Fields(out)[2])
	if err != nil {
		t.Fatal(err)
	}
	if got := "rawdisk:" + im.Root().Prev.String(); got != score || im.Root().Name != disk[:min(len(disk), 127)] {
		t.Errorf("the second root is %+v", im.Root())
	}
	// A disk that is mounted nowhere is named by itself.
	if !strings.Contains(out, "/2026/1122"+disk+" ") {
		t.Errorf("printed %q", out)
	}
}

func TestVbackupRefuses(t *testing.T) {
	host := ventitest.Serve(t, ventitest.NewMemory())
	disk := noise(t, 5000)
	for _, tc := range []struct {
		name   string
		status int
		msg    string
		args   []string
	}{
		{"no disk", 2, "usage: vbackup", []string{"-h", host}},
		{"bad score", 2, "ext2:12", []string{"-h", host, disk, "ext2:12"}},
		{"bad number", 2, "usage: vbackup", []string{"-h", host, "-s", "-1", disk}},
		{"no such disk", 1, "no such file", []string{"-h", host, disk + "x"}},
		{"a folder", 1, "neither a regular file nor a block device", []string{"-h", host, filepath.Dir(disk)}},
		{"no server", 1, "no such file", []string{"-h", "unix!" + disk + "x", disk}},
		{"no such backup", 1, "no block with score", []string{"-h", host, disk, "ext2:" + strings.Repeat("12", 20)}},
	} {
		status, out, msg := vbackup(t, tc.args...)
		if status != tc.status || !strings.Contains(msg, tc.msg) || out != "" {
			t.Errorf("%s: status %d, %q, %q", tc.name, status, out, msg)
		}
	}
}

func TestMountedAt(t *testing.T) {
	if got, err := mountedAt("/proc/self/mounts"); err != nil || got != "/proc/self/mounts" {
		t.Errorf("a file: %q, %v", got, err)
	}
	if got, want := unescape(`/a\040b\134\9`), `/a b\\9`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	text := "proc /proc proc rw 0 0\n/dev/sda1 /mnt/a\\040b ext4 rw 0 0\n/dev/sda1 /again ext4 rw 0 0\n"
	for disk, want := range map[string]string{"/dev/sda1": "/mnt/a b", "/dev/sda": "", "/mnt/a b": ""} {
		if got := findMount(strings.NewReader(text), disk); got != want {
			t.Errorf("%s: %q, want %q", disk, got, want)
		}
	}
}
