package suite

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"strata/tests/harness"
)

// TestOtherUsers has processes of other users at the sockets of strata up:
// the kernel keeps them off sockets that are their owner's alone, and where the
// mode lets them in they are who the kernel says.
func TestOtherUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: cannot run a process as another user")
	}
	diodcat, err := exec.LookPath("diodcat")
	if err != nil {
		if diodcat, err = exec.LookPath("/usr/sbin/diodcat"); err != nil {
			t.Skip("no diodcat (package diod) to read over 9P with")
		}
	}
	ours, dir := harness.Ours(t), t.TempDir()
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) { // to the test's own
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	store := filepath.Join(dir, "store")
	// as reads /status as a user who says to be another, and returns what the
	// program says.
	as := func(uid, claim string) (string, error) {
		cmd := exec.Command(diodcat, "-s", filepath.Join(store, "vdisk.sock"), "-u", claim, "-a", "/", "status")
		if uid != "0" {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4321, Gid: 4321}}
		}
		var said bytes.Buffer
		cmd.Stderr = &said
		_, err := cmd.Output()
		return said.String(), err
	}
	stop := strataUp(t, ours, store)
	if said, err := as("4321", "4321"); err == nil || !strings.Contains(said, "Permission denied") {
		t.Errorf("another user at a private socket: %v, %s", err, said)
	}
	stop()
	rule := ""
	stop = strataUp(t, ours, store, "--socket-mode", "0666")
	for _, tc := range []struct {
		rule, uid, claim string
		ok               bool
	}{
		{"", "4321", "4321", true},
		{"", "4321", "0", false},
		{"", "0", "4321", true},
		{"uid=4321 4321 root", "4321", "0", true},
	} {
		if tc.rule != rule {
			stop()
			stop = strataUp(t, ours, store, "--socket-mode", "0666", "--user", tc.rule)
			rule = tc.rule
		}
		if said, err := as(tc.uid, tc.claim); (err == nil) != tc.ok || !tc.ok && !strings.Contains(said, "Operation not permitted") {
			t.Errorf("rule %q: user %s attaches as %s: %v, %s", tc.rule, tc.uid, tc.claim, err, said)
		}
	}
	stop()
}

// TestOtherUsersOfFossil has other users at the socket of the file system: the
// table of users says what they may do, and the console is the owner's.
func TestOtherUsersOfFossil(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: cannot run a process as another user")
	}
	diodcat, err := exec.LookPath("diodcat")
	if err != nil {
		if diodcat, err = exec.LookPath("/usr/sbin/diodcat"); err != nil {
			t.Skip("no diodcat (package diod) to read over 9P with")
		}
	}
	ours, dir := harness.Ours(t), t.TempDir()
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	store := filepath.Join(dir, "store")
	stop := strataUp(t, ours, store, "--socket-mode", "0666")
	defer stop()
	fscons := func(line string) string {
		t.Helper()
		return ours.Run(t, nil, "fossil/fscons", "-a", "unix!"+filepath.Join(store, "fscons.sock"), "-c", line)
	}
	fscons("uname 4321 4321")
	fscons("create /active/private adm adm 640")
	fscons("create /active/public adm adm 644")
	fscons("create /active/usr/4321/own 4321 4321 600")
	for _, tc := range []struct {
		uid, claim, path string
		ok               bool
	}{
		{"4321", "4321", "active/public", true},
		{"4321", "4321", "active/usr/4321/own", true},
		{"4321", "4321", "active/private", false},
		{"4321", "0", "active/private", false},
		{"4321", "4321", "ctl", false},
		{"4322", "4322", "active/usr/4321/own", false},
		{"0", "0", "active/private", true}, // of the group adm
		{"0", "0", "ctl", true},
	} {
		cmd := exec.Command(diodcat, "-s", filepath.Join(store, "fossil.sock"), "-u", tc.claim, "-a", "main", tc.path)
		if tc.uid != "0" {
			id, err := strconv.ParseUint(tc.uid, 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(id), Gid: uint32(id)}}
		}
		if said, err := cmd.CombinedOutput(); (err == nil) != tc.ok {
			t.Errorf("user %s as %s reads %s: %v, %s", tc.uid, tc.claim, tc.path, err, said)
		}
	}
}

// TestFossilEnds has the program end by a signal, as a real process: what was
// written is there, and Plan 9's programs could open the partition.
func TestFossilEnds(t *testing.T) {
	ours, dir := harness.Ours(t), t.TempDir()
	part, sock, cons := filepath.Join(dir, "part"), filepath.Join(dir, "f.sock"), filepath.Join(dir, "c.sock")
	if err := os.WriteFile(part, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(part, 16<<20); err != nil {
		t.Fatal(err)
	}
	ours.Run(t, nil, "fossil/flfmt", part)
	ours.Run(t, []byte("fsys main config *\nfsys main open -AV\n"), "fossil/conf", "-w", part)
	cmd := ours.Command(t.Context(), "fossil/fossil", "-f", part, "-a", "unix!"+sock, "--console", "unix!"+cons)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for range 2 {
		if !lines.Scan() {
			t.Fatalf("it ended: %v, %s", cmd.Wait(), &said)
		}
	}
	ours.Run(t, nil, "fossil/fscons", "-a", "unix!"+cons, "create", "/active/kept", "adm", "adm", "600")
	if _, _, err := ours.Try(t, nil, "fossil/fscons", "-a", "unix!"+cons, "nonsense"); err == nil {
		t.Error("a command that fails is a success")
	}
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("it ended with %v\n%s", err, &said)
	}
	const super, version = 18 * 8192, 4
	b, err := os.ReadFile(part)
	if err != nil {
		t.Fatal(err)
	}
	if v := binary.BigEndian.Uint16(b[super+version:]); v != 1 {
		t.Errorf("the super block has version %d: the log is to be replayed", v)
	}
	stat := ours.Run(t, nil, "fossil/fossil", "-c", "fsys main config "+part, "-c", "open -Vr", "-c", "stat /active/kept", "-t", "-a", "unix!"+sock, "--console", "none")
	if !strings.Contains(stat, "\tstat /active/kept kept adm adm 600 0\n") {
		t.Errorf("opened again: %s", stat)
	}
	ours.Run(t, nil, "fossil/flchk", "-f", part)
}
