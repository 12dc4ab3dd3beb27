package suite

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
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
