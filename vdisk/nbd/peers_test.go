package nbd_test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"strata/internal/netaddr"
	"strata/internal/netaddr/tlstest"
	"strata/vdisk/nbd"
)

// need skips the test unless a program is there.
func need(t testing.TB, program, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("no %s (package %s) to try the server with", program, pkg)
	}
}

// run runs a program of a peer, which must succeed.
func run(t testing.TB, program string, args ...string) string {
	t.Helper()
	out, err := try(t, program, args...)
	if err != nil {
		t.Fatalf("%s %s: %v", program, strings.Join(args, " "), err)
	}
	return out
}

func try(t testing.TB, program string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w\n%s%s", err, &out, &said)
	}
	return out.String(), nil
}

// newFile makes a sparse file of size bytes with something in it.
func newFile(t testing.TB, size int64) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, uint64(size)))
	for range 8 {
		b := make([]byte, 1+rng.IntN(1<<20))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		if _, err := f.WriteAt(b, rng.Int64N(max(1, size-int64(len(b))))); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return name
}

// same fails unless two files are equal.
func same(t testing.TB, a, b string) {
	t.Helper()
	x, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(x, y) {
		t.Fatalf("%s and %s differ", a, b)
	}
}

func uri(addr, export string) string { return "nbd+unix:///" + export + "?socket=" + addr }

const mb = 1 << 20

func TestNbdinfo(t *testing.T) {
	need(t, "nbdinfo", "libnbd-bin")
	d := openFile(t, newFile(t, 16*mb+512))
	addr, _ := serve(t, exports{
		"":     {Disk: &memDisk{data: talkDisk()}, ReadOnly: true, Description: "the default"},
		"file": {Disk: d, PreferredBlock: 65536},
	}, nbd.Config{})
	var info struct {
		Protocol string
		TLS      bool
		Exports  []map[string]any
	}
	if err := json.Unmarshal([]byte(run(t, "nbdinfo", "--json", uri(addr, "file"))), &info); err != nil {
		t.Fatal(err)
	}
	if info.Protocol != "newstyle-fixed" || info.TLS || len(info.Exports) != 1 {
		t.Fatalf("got %+v", info)
	}
	for name, want := range map[string]any{
		"export-name": "file", "export-size": float64(16*mb + 512), "is_read_only": false, "can_cache": true, "can_df": true,
		"can_fast_zero": true, "can_flush": true, "can_fua": true, "can_multi_conn": false, "can_trim": true, "can_zero": true,
		"block_size_minimum": float64(1), "block_size_preferred": float64(65536), "block_size_maximum": float64(32 * mb),
	} {
		if got := info.Exports[0][name]; got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	if err := json.Unmarshal([]byte(run(t, "nbdinfo", "--list", "--json", uri(addr, ""))), &info); err != nil {
		t.Fatal(err)
	}
	if len(info.Exports) != 2 || info.Exports[0]["description"] != "the default" || info.Exports[1]["export-name"] != "file" {
		t.Errorf("list: got %+v", info.Exports)
	}
	// The map is the file's own.
	var extents []struct{ Offset, Length, Type int64 }
	if err := json.Unmarshal([]byte(run(t, "nbdinfo", "--map", "--json", uri(addr, "file"))), &extents); err != nil {
		t.Fatal(err)
	}
	end := int64(0)
	for i, x := range extents {
		if x.Offset != end {
			t.Fatalf("extent %d begins at %d, not at %d", i, x.Offset, end)
		}
		end += x.Length
		start, stop, err := d.NextData(t.Context(), x.Offset)
		switch {
		case x.Type == 0 && (start != x.Offset || stop != end):
			t.Errorf("data at %d to %d: the file has %d to %d, %v", x.Offset, end, start, stop, err)
		case x.Type == 3 && err == nil && start != end:
			t.Errorf("hole at %d to %d: the file's ends at %d", x.Offset, end, start)
		case x.Type != 0 && x.Type != 3:
			t.Errorf("type %d", x.Type)
		}
	}
	if end != 16*mb+512 || len(extents) < 3 {
		t.Errorf("map ends at %d: %v", end, extents)
	}
	if _, err := try(t, "nbdinfo", uri(addr, "none")); err == nil || !strings.Contains(strings.ToLower(err.Error()), "no such file") {
		t.Errorf("of what there is not: got %v", err)
	}
}

func TestNbdcopy(t *testing.T) {
	need(t, "nbdcopy", "libnbd-bin")
	const size = 24*mb + 4608
	src, dst := newFile(t, size), newFile(t, size)
	addr, _ := serve(t, exports{
		"src": {Disk: openFile(t, src), ReadOnly: true},
		"dst": {Disk: openFile(t, dst), Shared: true},
		"one": {Disk: openFile(t, dst)},
	}, nbd.Config{})
	out := filepath.Join(t.TempDir(), "out")
	run(t, "nbdcopy", uri(addr, "src"), out)
	same(t, src, out)
	run(t, "nbdcopy", "--request-size=33554432", uri(addr, "src"), out)
	same(t, src, out)
	run(t, "nbdcopy", "--flush", uri(addr, "src"), uri(addr, "dst"))
	same(t, src, dst)
	if err := os.WriteFile(dst, bytes.Repeat([]byte{1}, size), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "nbdcopy", src, uri(addr, "one"))
	same(t, src, dst)
	run(t, "nbdcopy", "--allocated", "--requests=3", src, uri(addr, "dst"))
	same(t, src, dst)
}

// randomOps does random operations in nbdsh on an export and on a plain file.
const randomOps = `
import random, os
size, seed = int(os.environ["SIZE"]), int(os.environ["SEED"])
rng = random.Random(seed)
plain = open(os.environ["PLAIN"], "r+b")
h.add_meta_context("base:allocation")
h.set_strict_mode(0)
h.connect_uri(os.environ["URI"])
assert h.get_structured_replies_negotiated() and h.get_size() == size
def where():
    n = rng.choice([1, 512, 4096, 8192, 70000, 300000, 2000000])
    n = rng.randint(1, n)
    return rng.randrange(0, size - n), n
for i in range(int(os.environ["COUNT"])):
    off, n = where()
    op = rng.choice(["read", "read", "read", "df", "write", "write", "zero", "trim", "cache", "flush", "status", "async"])
    plain.seek(off)
    fua = rng.choice([0, nbd.CMD_FLAG_FUA])
    if op == "read":
        assert h.pread(n, off) == plain.read(n), (seed, i)
    elif op == "df":
        assert h.pread(n, off, nbd.CMD_FLAG_DF) == plain.read(n), (seed, i)
    elif op == "write":
        b = rng.randbytes(n)
        h.pwrite(b, off, fua)
        plain.write(b)
    elif op == "zero":
        h.zero(n, off, fua | rng.choice([0, nbd.CMD_FLAG_NO_HOLE]))
        plain.write(bytes(n))
    elif op == "trim":
        h.trim(n, off, fua)
        # What is there now is the server's business.
        plain.write(h.pread(n, off))
    elif op == "cache":
        h.cache(n, off)
    elif op == "flush":
        h.flush()
    elif op == "status":
        at = off
        def seen(context, offset, entries, err):
            global at
            assert context == "base:allocation" and offset == off
            for length, flags in zip(entries[::2], entries[1::2]):
                if flags & 2:
                    plain.seek(at)
                    assert not any(plain.read(min(length, size - at))), (seed, i)
                at += length
        h.block_status(n, off, seen)
        assert at > off
    elif op == "async":
        bufs = []
        for _ in range(20):
            o, m = where()
            b = nbd.Buffer(m)
            bufs.append((h.aio_pread(b, o), b, o, m))
        for c, b, o, m in bufs:
            while not h.aio_command_completed(c):
                h.poll(-1)
            plain.seek(o)
            assert b.to_bytearray() == plain.read(m), (seed, i)
h.shutdown()
`

func TestNbdsh(t *testing.T) {
	python := ""
	for _, p := range []string{"/usr/bin/python3", "python3"} { // Debian's has the package's module
		if exec.CommandContext(t.Context(), p, "-c", "import nbd").Run() == nil {
			python = p
			break
		}
	}
	if python == "" {
		t.Skip("no nbd module (package python3-libnbd) to try the server with")
	}
	const size = 12*mb + 1000
	for _, name := range []string{"file", "memory", "rich"} {
		for seed := range 3 {
			t.Run(fmt.Sprint(name, seed), func(t *testing.T) {
				served, plain := newFile(t, size), newFile(t, size)
				data, err := os.ReadFile(served)
				if err != nil {
					t.Fatal(err)
				}
				x := exports{
					"file":   {Disk: openFile(t, served)},
					"memory": {Disk: &memDisk{data: data}},
					"rich":   {Disk: &richDisk{memDisk{data: data}}},
				}
				addr, stop := serve(t, x, nbd.Config{})
				t.Setenv("SIZE", fmt.Sprint(size))
				t.Setenv("SEED", fmt.Sprint(seed))
				t.Setenv("COUNT", "300")
				t.Setenv("PLAIN", plain)
				t.Setenv("URI", uri(addr, name))
				run(t, python, "-m", "nbd", "-c", randomOps)
				stop()
				if name != "file" {
					served = filepath.Join(t.TempDir(), "served")
					if err := os.WriteFile(served, data, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				same(t, served, plain)
			})
		}
	}
}

func TestQEMU(t *testing.T) {
	need(t, "qemu-io", "qemu-utils")
	const size = 16 * mb
	served, plain := newFile(t, size), newFile(t, size)
	d := openFile(t, served)
	addr, _ := serve(t, exports{"disk": {Disk: d}, "ro": {Disk: d, ReadOnly: true}}, nbd.Config{})
	target := "nbd+unix:///disk?socket=" + addr
	rng := rand.New(rand.NewPCG(7, 7))
	var script []string
	for i := range 200 {
		off, n := rng.Int64N(size-3*mb)&^511, (1+rng.Int64N(2*mb))&^511+512
		switch rng.IntN(7) {
		case 0:
			script = append(script, fmt.Sprintf("aio_write -q -P %d %d %d", i%255+1, off, n), "aio_flush")
		case 1:
			script = append(script, fmt.Sprintf("write -q -P %d %d %d", i%255+1, off, n))
		case 2:
			script = append(script, fmt.Sprintf("write -q -f -P %d %d %d", i%255+1, off, n))
		case 3:
			script = append(script, fmt.Sprintf("write -q -z %d %d", off, n))
		case 4:
			script = append(script, fmt.Sprintf("write -q -z -u %d %d", off, n))
		case 5:
			script = append(script, "flush")
		case 6:
			script = append(script, fmt.Sprintf("read -q %d %d", off, n))
		}
	}
	for _, disk := range []string{target, plain} {
		var args []string
		for _, line := range script {
			args = append(args, "-c", line)
		}
		run(t, "qemu-io", append(append([]string{"-f", "raw"}, args...), disk)...)
	}
	same(t, served, plain)
	ro := "nbd+unix:///ro?socket=" + addr
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", ro, plain)
	out := filepath.Join(t.TempDir(), "out.qcow2")
	run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", ro, out)
	run(t, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", out, plain)
	other := newFile(t, size+mb)
	if err := os.Truncate(other, size); err != nil {
		t.Fatal(err)
	}
	run(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", other, target)
	same(t, served, other)
	if _, err := try(t, "qemu-io", "-f", "raw", "-c", "write 0 512", ro); err == nil {
		t.Error("a read-only export was written to")
	}
}

func TestFio(t *testing.T) {
	need(t, "fio", "fio")
	if out, _ := try(t, "fio", "--enghelp"); !strings.Contains(out, "nbd") {
		t.Skip("this fio has no engine nbd")
	}
	d := openFile(t, newFile(t, 32*mb))
	addr, _ := serve(t, exports{"disk": {Disk: d, Shared: true}}, nbd.Config{})
	t.Chdir(t.TempDir()) // for the state that fio leaves
	run(t, "fio", "--name=verify", "--ioengine=nbd", "--uri="+uri(addr, "disk"), "--rw=randrw", "--bsrange=512-64k", "--bs_unaligned=1",
		"--iodepth=16", "--size=32m", "--io_size=32m", "--fsync=64", "--verify=crc32c", "--do_verify=1", "--verify_backlog=256", "--randseed=11")
}

// TestTLSPeer has libnbd come over TLS, with and without a certificate.
func TestTLSPeer(t *testing.T) {
	need(t, "nbdinfo", "libnbd-bin")
	ca := tlstest.NewCA(t, "our ca")
	ln, err := netaddr.Config{Upgrade: true}.Listen(t.Context(), "tls!127.0.0.1!0!cert="+ca.Issue("server", nil)+"!ca="+ca.File, nbd.Service)
	if err != nil {
		t.Fatal(err)
	}
	src := newFile(t, 4*mb)
	serveOn(t, exports{"disk": {Disk: openFile(t, src)}}, nbd.Config{}, ln)
	certs := t.TempDir()
	put := func(name string, blocks ...*pem.Block) {
		var b bytes.Buffer
		for _, p := range blocks {
			pem.Encode(&b, p)
		}
		if err := os.WriteFile(filepath.Join(certs, name), b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	parse := func(file string) (cert, key *pem.Block) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for {
			p, rest := pem.Decode(text)
			if p == nil {
				return cert, key
			}
			if text = rest; p.Type == "CERTIFICATE" && cert == nil {
				cert = p
			} else if p.Type != "CERTIFICATE" {
				key = p
			}
		}
	}
	authority, _ := parse(ca.File)
	put("ca-cert.pem", authority)
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	target := "nbds://127.0.0.1:" + port + "/disk?tls-certificates=" + certs
	if out, err := try(t, "nbdinfo", "--size", target); err == nil {
		t.Errorf("without a certificate the size is %s", out)
	}
	cert, key := parse(ca.Issue("client", nil))
	put("client-cert.pem", cert)
	put("client-key.pem", key)
	if out := run(t, "nbdinfo", "--size", target); strings.TrimSpace(out) != fmt.Sprint(4*mb) {
		t.Errorf("size: got %s", out)
	}
	out := filepath.Join(t.TempDir(), "out")
	run(t, "nbdcopy", target, out)
	same(t, src, out)
	if _, err := try(t, "nbdinfo", "--size", "nbd://127.0.0.1:"+port+"/disk"); err == nil {
		t.Error("without TLS the export opens")
	}
	need(t, "qemu-img", "qemu-utils")
	run(t, "qemu-img", "compare", "--object", "tls-creds-x509,id=tls,endpoint=client,dir="+certs, "--image-opts",
		"driver=raw,file.driver=nbd,file.server.type=inet,file.server.host=127.0.0.1,file.server.port="+port+",file.export=disk,file.tls-creds=tls",
		"driver=raw,file.driver=file,file.filename="+src)
}

// TestKernel mounts nothing, but reads and writes by the kernel's own client.
func TestKernel(t *testing.T) {
	need(t, "nbd-client", "nbd-client")
	if os.Geteuid() != 0 {
		t.Skip("not root: cannot attach a device")
	}
	dev := ""
	for i := range 16 {
		name := fmt.Sprintf("nbd%d", i)
		if _, err := os.Stat("/dev/" + name); err != nil {
			continue
		}
		if _, err := os.Stat("/sys/block/" + name + "/pid"); err != nil {
			dev = "/dev/" + name
			break
		}
	}
	if dev == "" {
		t.Skip("no free /dev/nbd*: the kernel has no client (modprobe nbd)")
	}
	const size = 16 * mb
	served, want := newFile(t, size), newFile(t, size+mb)
	if err := os.Truncate(want, size); err != nil {
		t.Fatal(err)
	}
	d := openFile(t, served)
	addr, _ := serve(t, exports{"disk": {Disk: d}}, nbd.Config{})
	run(t, "nbd-client", "-unix", addr, dev, "-N", "disk")
	defer run(t, "nbd-client", "-d", dev)
	run(t, "cmp", served, dev)
	run(t, "dd", "if="+want, "of="+dev, "bs=64k", "oflag=direct", "conv=fsync", "status=none")
	same(t, served, want)
	run(t, "blkdiscard", "-z", "-o", "0", "-l", fmt.Sprint(mb), dev)
	b := make([]byte, mb)
	if _, err := d.ReadAt(t.Context(), b, 0); err != nil || !bytes.Equal(b, make([]byte, mb)) {
		t.Errorf("after zeroing: %v", err)
	}
}
