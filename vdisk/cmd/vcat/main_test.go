package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"strata/vdisk"
	"strata/venti/ventitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const size = 5<<20 + 77

// stored stores a file with a hole, serves it until the test ends, and returns
// its contents, its score and the server's address.
func stored(t *testing.T) (data []byte, score, host string) {
	t.Helper()
	data = make([]byte, size)
	for i := range 100000 {
		data[i], data[size-1-i] = byte(i>>8), byte(i>>7+1)
	}
	name := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(name, data, 0o666); err != nil {
		t.Fatal(err)
	}
	disk, err := vdisk.OpenDisk(name)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	st := ventitest.NewMemory()
	res, err := vdisk.Backup(t.Context(), st, disk, vdisk.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return data, "rawdisk:" + res.Score.String(), ventitest.Serve(t, st)
}

func vcat(t *testing.T, stdout io.Writer, args ...string) (status int, stderr string) {
	t.Helper()
	var msg bytes.Buffer
	status = cat().Execute(t.Context(), args, strings.NewReader(""), stdout, &msg)
	return status, msg.String()
}

func TestVcat(t *testing.T) {
	data, score, host := stored(t)
	var out bytes.Buffer
	if status, msg := vcat(t, &out, "-h", host, score); status != 0 || msg != "" || !bytes.Equal(out.Bytes(), data) {
		t.Fatalf("to a pipe: status %d, %d bytes, %s", status, out.Len(), msg)
	}
	for _, tc := range []struct {
		name   string
		before string // what the file holds
		mode   int
		seek   int64
		zero   bool
		want   string
		sparse bool
	}{
		{"new file", "", 0, 0, false, string(data), true},
		{"new file, no holes", "", 0, 0, true, string(data), false},
		{"over a longer file", strings.Repeat("x", size+100), 0, 0, false, string(data), true},
		{"appended", "header", os.O_APPEND, 0, false, "header" + string(data), false},
		{"after what was written", "header", 0, 6, false, "header" + string(data), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "out")
			if err := os.WriteFile(name, []byte(tc.before), 0o666); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(name, os.O_RDWR|tc.mode, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.Seek(tc.seek, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			args := []string{"-h", host, score}
			if tc.zero {
				args = append(args, "-z")
			}
			if status, msg := vcat(t, f, args...); status != 0 || msg != "" {
				t.Fatalf("status %d, %s", status, msg)
			}
			// What is written next goes behind the disk.
			if _, err := f.WriteString("end"); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(name); err != nil || string(got) != tc.want+"end" {
				t.Errorf("%d bytes, want %d: %v", len(got), len(tc.want)+3, err)
			}
			fi, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			if used := fi.Sys().(*syscall.Stat_t).Blocks * 512; (used < 2<<20) != tc.sparse {
				t.Errorf("the file takes %d bytes", used)
			}
		})
	}
}

func TestVcatRefuses(t *testing.T) {
	_, score, host := stored(t)
	for _, tc := range []struct {
		name   string
		status int
		msg    string
		args   []string
	}{
		{"no score", 2, "usage: vcat", []string{"-h", host}},
		{"no score in it", 1, "bad score", []string{"-h", host, "disk"}},
		{"another type", 1, "not a disk image", []string{"-h", host, strings.Replace(score, "rawdisk", "ext2", 1)}},
		{"not there", 1, "no block with score", []string{"-h", host, "ext2:" + strings.Repeat("12", 20)}},
	} {
		var out bytes.Buffer
		if status, msg := vcat(t, &out, tc.args...); status != tc.status || !strings.Contains(msg, tc.msg) || out.Len() > 0 {
			t.Errorf("%s: status %d, %q, %d bytes", tc.name, status, msg, out.Len())
		}
	}
}
