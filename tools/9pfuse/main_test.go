package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strata/internal/ninep"
	"strata/internal/ninep/ninefuse"
	"strata/internal/ninep/ninetest"
)

func TestOptions(t *testing.T) {
	for _, tc := range []struct {
		opts string
		err  string // a part of it
	}{
		{"ro,aname=x,uname=glenda,version=9p2000.L,msize=64k,cache=loose", ""},
		{"attr_timeout=0,entry_timeout=2.5,negative_timeout=1,uid=1,gid=2,allow_other,nodefault_permissions", ""},
		{"rw,nodev,nosuid,noexec,relatime,_netdev,x-systemd.automount,nofail,defaults", ""},
		{"version=9p3000", "option version=9p3000: no such version"},
		{"msize=17m", "want 256 to 16777216"},
		{"msize=x", "option msize=x"},
		{"cache=sometimes", "want none or loose"},
		{"uid=glenda", "want a number"},
		{"attr_timeout=-1", "want a number of seconds"},
		{"colour=blue", "option colour=blue: unknown"},
	} {
		t.Run(tc.opts, func(t *testing.T) {
			_, err := parseOptions([]string{tc.opts})
			if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
				t.Errorf("error %v, want %q", err, tc.err)
			}
		})
	}
	o, err := parseOptions([]string{"ro,msize=64k", "attr_timeout=0,version=9p2000.u,uid=7"})
	if err != nil {
		t.Fatal(err)
	}
	want := ninefuse.Config{ReadOnly: true, AttrTime: -1, UID: o.mount.UID}
	if o.msize != 64<<10 || *o.dialect != ninep.Unix || *o.mount.UID != 7 || !o.mount.ReadOnly || o.mount.AttrTime != want.AttrTime {
		t.Errorf("%+v", o)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"one"}, {"-o", "colour=blue", "a", "b"}, {"-A", "x", "a", "b"}} {
		var out bytes.Buffer
		if got := newCommand().Execute(t.Context(), args, nil, &out, &out); got != 2 {
			t.Errorf("%q: status %d, want 2: %s", args, got, &out)
		}
	}
}

// TestMount runs the program itself, as mount(8) would.
func TestMount(t *testing.T) {
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		t.Skipf("no FUSE here: %v", err)
	} else {
		f.Close()
	}
	prog := filepath.Join(t.TempDir(), "9pfuse")
	if out, err := exec.Command("go", "build", "-o", prog, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "9p"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- ninep.NewServer(ninetest.NewMemFS(time.Now), ninep.Config{}).Serve(ctx, ln) }()
	defer func() { cancel(); <-served }()
	sock := ln.Addr().String()
	dir := t.TempDir()

	run := func(args ...string) (string, error) {
		out, err := exec.Command(prog, args...).CombinedOutput()
		return string(out), err
	}
	if out, err := run(sock+"none", dir); err == nil || !strings.HasPrefix(out, "9pfuse: ") {
		t.Errorf("no server: %v, %q", err, out)
	}
	if out, err := run("-a", "missing", sock, dir); err == nil || !strings.Contains(out, "file does not exist") {
		t.Errorf("no tree: %v, %q", err, out)
	}
	for _, version := range []string{"9p2000", "9p2000.u", "9p2000.L"} {
		t.Run(version, func(t *testing.T) {
			if out, err := run("-o", "version="+version, sock, dir); err != nil {
				if strings.Contains(out, "not permitted") || strings.Contains(out, "fusermount") {
					t.Skipf("mounting is not allowed here: %s", out)
				}
				t.Fatalf("%v: %s", err, out)
			}
			name := filepath.Join(dir, version)
			err := os.WriteFile(name, []byte("x\n"), 0o600)
			if err == nil {
				_, err = os.ReadFile(name)
			}
			mounts, _ := os.ReadFile("/proc/self/mounts")
			if want := sock + " " + dir + " fuse.9pfuse rw,nosuid,nodev"; !strings.Contains(string(mounts), want) {
				t.Errorf("/proc/self/mounts has no line %q", want)
			}
			umount := []string{"umount", dir}
			if os.Geteuid() != 0 {
				umount = []string{"fusermount3", "-u", dir}
			}
			if out, uerr := exec.Command(umount[0], umount[1:]...).CombinedOutput(); uerr != nil {
				t.Fatalf("umount: %v: %s", uerr, out)
			}
			if err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(name); err == nil {
				t.Error("still there after umount")
			}
		})
	}
}
