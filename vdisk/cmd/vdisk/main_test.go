package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"9fans.net/go/plan9"
	"9fans.net/go/plan9/client"
	"go.uber.org/goleak"

	"strata/vdisk"
	"strata/venti"
	"strata/venti/ventitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startVenti serves st at addr until stop is called.
func startVenti(t *testing.T, st venti.Store, addr string) (stop func()) {
	t.Helper()
	ln, err := venti.ListenConfig{}.Listen(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { venti.NewServer(st, venti.ServerConfig{}).Serve(ctx, ln) })
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); wg.Wait() }) }
	t.Cleanup(stop)
	return stop
}

// vdiskRun runs the program.
func vdiskRun(t *testing.T, stdin string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, msg bytes.Buffer
	status = suite().Execute(t.Context(), args, strings.NewReader(stdin), &out, &msg)
	return status, out.String(), msg.String()
}

// mustRun runs the program, which must succeed.
func mustRun(t *testing.T, stdin string, args ...string) (stdout, stderr string) {
	t.Helper()
	status, stdout, stderr := vdiskRun(t, stdin, args...)
	if status != 0 {
		t.Fatalf("vdisk %s: status %d\n%s%s", strings.Join(args, " "), status, stdout, stderr)
	}
	return stdout, stderr
}

// noise makes a file of n bytes.
func noise(t *testing.T, n int) string {
	t.Helper()
	b := make([]byte, n)
	rand.New(rand.NewSource(int64(n))).Read(b[n/3:])
	name := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(name, b, 0o666); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestCommands(t *testing.T) {
	st := ventitest.NewMemory()
	host := filepath.Join(t.TempDir(), "venti")
	startVenti(t, st, host)
	disk := noise(t, 300001)
	want, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}

	out, msg := mustRun(t, "", "import", "-h", host, disk)
	kind, _, err := venti.ParseTypedScore(strings.TrimSuffix(out, "\n"))
	if err != nil || kind != "vdisk" {
		t.Fatalf("import prints %q", out)
	}
	score := strings.TrimSpace(out)
	for _, s := range []string{"region", "disk    293 KiB  293 KiB", "total", "blocks sent"} {
		if !strings.Contains(msg, s) {
			t.Errorf("messages of import: no %q in\n%s", s, msg)
		}
	}
	if out, _ := mustRun(t, string(want), "import", "-h", host, "--tmp", t.TempDir(), "-"); out != score+"\n" {
		t.Errorf("of a stream: got %q, want %q", out, score)
	}
	if out, _ := mustRun(t, "", "import", "-h", host, "-b", score, "-p", score, disk); out == score+"\n" {
		t.Error("with another prev the score is the same")
	}
	out, msg = mustRun(t, "", "import", "-h", host, "--json", disk)
	var res vdisk.Result
	if err := json.Unmarshal([]byte(out), &res); err != nil || "vdisk:"+res.Score.String() != score || res.Total.NewBlocks != 0 || msg != "" {
		t.Errorf("as JSON: %v\n%s%s", err, out, msg)
	}

	file := filepath.Join(t.TempDir(), "web.vdisk")
	if err := os.WriteFile(file, []byte(score+"\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	back := filepath.Join(t.TempDir(), "back.raw")
	mustRun(t, "", "export", "-h", host, file, back)
	if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, want) {
		t.Errorf("export: got %d bytes, %v", len(got), err)
	}
	if out, _ := mustRun(t, "", "export", "-h", host, score, "-"); out != string(want) {
		t.Errorf("export to the standard output: got %d bytes", len(out))
	}
	if status, _, msg := vdiskRun(t, "", "export", "-h", host, score, back); status != 1 || !strings.Contains(msg, "not empty") {
		t.Errorf("export over a file: got %d, %s", status, msg)
	}
	mustRun(t, "", "export", "-h", host, "--force", score, back)
	if status, _, msg := vdiskRun(t, "", "export", "-h", host, "-f", score, t.TempDir()); status != 1 || !strings.Contains(msg, "neither") {
		t.Errorf("export over a folder: got %d, %s", status, msg)
	}

	image := filepath.Join(t.TempDir(), "back.qcow2")
	mustRun(t, "", "export", "-h", host, score, image)
	for _, args := range [][]string{{image}, {"--base", score, "--changed", "-", image}, {"--format", "qcow2", "--no-paging", image}} {
		if out, _ := mustRun(t, "", append([]string{"import", "-h", host}, args...)...); out != score+"\n" {
			t.Errorf("import %s: got %q, want %q", args, out, score)
		}
	}
	if out, _ := mustRun(t, "", "info", image); !strings.HasPrefix(out, "size 300001\ntable none\n") {
		t.Errorf("info of an image: got %s", out)
	}
	if out, _ := mustRun(t, "", "verify", "-h", host, "--against", image, score); strings.Count(out, "good ") != 2 {
		t.Errorf("verify against an image: got %s", out)
	}

	for _, arg := range []string{score, file} {
		if out, _ := mustRun(t, "", "info", "-h", host, arg); !strings.HasPrefix(out, "score "+score+"\nsize 300001\ntable none\nregion") {
			t.Errorf("info %s: got %s", arg, out)
		}
	}
	if out, _ := mustRun(t, "", "info", disk); !strings.HasPrefix(out, "size 300001\ntable none\nregion") {
		t.Errorf("info of a file: got %s", out)
	}
	a, _ := mustRun(t, "", "info", "-j", disk)
	b, _ := mustRun(t, "", "info", "-j", "-h", host, score)
	if a != b {
		t.Errorf("layouts: got %s and %s", a, b)
	}
	if _, err := vdisk.DecodeLayout([]byte(a)); err != nil {
		t.Error(err)
	}

	if out, _ := mustRun(t, "", "verify", "-h", host, "--against", disk, score); strings.Count(out, "good ") != 2 {
		t.Errorf("verify: got %s", out)
	}
	want[200000]++
	if err := os.WriteFile(disk, want, 0o666); err != nil {
		t.Fatal(err)
	}
	status, out, msg := vdiskRun(t, "", "verify", "-h", host, "--against", disk, score)
	if status != 1 || !strings.Contains(out, "bad disk 196608 4096 differs\n") || !strings.Contains(msg, "1 pieces differ") {
		t.Errorf("verify against another disk: got %d, %s%s", status, out, msg)
	}
	want[200000]--
	st.Remove(venti.ScoreOf(want[196608:200704]), venti.DataType)
	status, out, msg = vdiskRun(t, "", "verify", "-h", host, score)
	if status != 1 || !strings.Contains(out, "bad disk 196608 4096 ") || !strings.Contains(msg, "1 blocks are missing") {
		t.Errorf("verify of a damaged image: got %d, %s%s", status, out, msg)
	}
	gone := filepath.Join(t.TempDir(), "gone.raw")
	if status, _, _ := vdiskRun(t, "", "export", "-h", host, score, gone); status != 1 {
		t.Errorf("export of a damaged image: got %d", status)
	}
	if _, err := os.Stat(gone); !os.IsNotExist(err) {
		t.Errorf("half a disk is left: %v", err)
	}
}

func TestCommandFailures(t *testing.T) {
	host := filepath.Join(t.TempDir(), "venti")
	startVenti(t, ventitest.NewMemory(), host)
	disk := noise(t, 5000)
	absent := "vdisk:" + strings.Repeat("1", 40)
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{nil, 2, "usage: vdisk command"},
		{[]string{"import"}, 2, "usage: vdisk import"},
		{[]string{"import", "-h", host, disk, disk}, 2, "usage: vdisk import"},
		{[]string{"import", "-h", host, disk + "x"}, 1, "no such file"},
		{[]string{"import", "-h", host, "-b", "12", disk}, 2, "--base"},
		{[]string{"import", "-h", host, "-p", absent, disk}, 1, "previous image"},
		{[]string{"import", "-h", host + "x", disk}, 1, "vdisk import:"},
		{[]string{"import", "-h", host, "--changed", disk, disk}, 2, "--changed goes with --base"},
		{[]string{"import", "-h", host, "--changed", "-", "-b", absent, "-"}, 2, "either the disk or the list"},
		{[]string{"import", "-h", host, "--changed", disk + "x", "-b", absent, disk}, 1, "no such file"},
		{[]string{"import", "-h", host, "--changed", disk, "-b", absent, disk}, 1, "line 1"},
		{[]string{"import", "-h", host, "--format", "qcow2", disk}, 1, "not a qcow2 image"},
		{[]string{"import", "-h", host, "--format", "qcow2", "-"}, 2, "a stream is a raw disk"},
		{[]string{"export", "-h", host, "--format", "vmdk", absent, disk}, 2, "raw or qcow2"},
		{[]string{"export", "-h", host, "--format", "qcow2", absent, "-"}, 2, "needs a FILE"},
		{[]string{"export", "-h", host, absent}, 2, "usage: vdisk export"},
		{[]string{"export", "-h", host, absent, filepath.Join(t.TempDir(), "x")}, 1, "no block"},
		{[]string{"export", "-h", host, "12", filepath.Join(t.TempDir(), "x")}, 1, "bad score"},
		{[]string{"info", "-h", host, absent}, 1, "no block"},
		{[]string{"info", "-h", host, "nothing"}, 1, "no such file"},
		{[]string{"verify", "-h", host, absent}, 1, "no block"},
		{[]string{"serve", "-h", host, "x"}, 2, "usage: vdisk serve"},
		{[]string{"serve", "-h", host, "--files", "/nowhere"}, 1, "/nowhere"},
		{[]string{"serve", "-h", host, "-a", "tcp!*!0"}, 1, "loopback"},
	} {
		status, _, msg := vdiskRun(t, "", c.args...)
		if status != c.status || !strings.Contains(msg, c.want) {
			t.Errorf("vdisk %s: got %d, %s, want %d, %q", strings.Join(c.args, " "), status, msg, c.status, c.want)
		}
	}
}

// TestServe serves disks, and loses their archive meanwhile: what was read is in
// memory.
func TestServe(t *testing.T) {
	st := ventitest.NewMemory()
	dir := t.TempDir()
	host := filepath.Join(dir, "venti")
	stop := startVenti(t, st, host)
	disks := make(map[string][]byte) // what they hold
	for i, name := range []string{"web", "unix", "tcp"} {
		disk := noise(t, 200000+i)
		b, err := os.ReadFile(disk)
		if err != nil {
			t.Fatal(err)
		}
		disks[name] = b
		out, _ := mustRun(t, "", "import", "-h", host, disk)
		if err := os.WriteFile(filepath.Join(dir, name+".vdisk"), []byte(out), 0o666); err != nil {
			t.Fatal(err)
		}
	}

	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		var msg bytes.Buffer
		args := []string{"serve", "-h", host, "-a", filepath.Join(dir, "9p"), "-a", "tcp!127.0.0.1!0", "--nbd", filepath.Join(dir, "nbd"), "--files", dir}
		if status := suite().Execute(ctx, args, strings.NewReader(""), w, &msg); status != 0 {
			t.Errorf("serve: got %d, %s", status, msg.String())
		}
		w.Close()
	})
	defer wg.Wait()
	defer cancel()
	var addrs []string
	for range 3 {
		var a string
		if _, err := fmt.Fscanln(r, &a); err != nil {
			t.Fatal(err)
		}
		addrs = append(addrs, a)
	}
	if addrs[2] != "unix!"+filepath.Join(dir, "nbd") {
		t.Errorf("announced %q for NBD", addrs[2])
	}
	nc, err := net.Dial("unix", filepath.Join(dir, "nbd"))
	if err != nil {
		t.Fatal(err)
	}
	greeting := make([]byte, 8)
	if _, err := io.ReadFull(nc, greeting); err != nil || string(greeting) != "NBDMAGIC" {
		t.Errorf("NBD greets with %q, %v", greeting, err)
	}
	nc.Close()
	for i, network := range []string{"unix", "tcp"} {
		f := strings.Split(addrs[i], "!")
		if f[0] != network {
			t.Fatalf("announced %q", addrs[i])
		}
		nc, err := net.Dial(network, strings.Join(f[1:], ":"))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := client.NewConn(nc)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fsys, err := conn.Attach(nil, "glenda", "")
		if err != nil {
			t.Fatal(err)
		}
		read := func(name string) error {
			f, err := fsys.Open("files/"+name+".vdisk", plan9.OREAD)
			if err != nil {
				return err
			}
			defer f.Close()
			got, err := io.ReadAll(f)
			if err == nil && !bytes.Equal(got, disks[name]) {
				err = fmt.Errorf("got %d bytes that differ", len(got))
			}
			return err
		}
		if err := read("web"); err != nil {
			t.Errorf("%s: %v", network, err)
		}
		stop()
		if err := read("web"); err != nil {
			t.Errorf("%s: read before, while the archive is away: %v", network, err)
		}
		if err := read(network); err == nil {
			t.Errorf("%s: the archive is away and a disk can be read that never was", network)
		}
		stop = startVenti(t, st, host)
		if err := read(network); err != nil {
			t.Errorf("%s: after the archive came back: %v", network, err)
		}
	}
}

func TestBytesText(t *testing.T) {
	for _, c := range []struct {
		n    int64
		want string
	}{{0, "0 B"}, {1023, "1023 B"}, {1024, "1 KiB"}, {300001, "293 KiB"}, {1 << 20, "1 MiB"}, {5 << 30, "5 GiB"}, {1<<60 - 1, "1024 PiB"}} {
		if got := bytesText(c.n); got != c.want {
			t.Errorf("%d: got %q, want %q", c.n, got, c.want)
		}
	}
}
