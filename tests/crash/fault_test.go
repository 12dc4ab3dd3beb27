package crash

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"strata/tests/harness"
	"strata/venti"
)

// TestFailedSyncIsNeverForgotten has the kernel fail the first fdatasync of a
// running server: that sync and every later one must be an error, reads go on,
// and after a restart the store is clean and works.
func TestFailedSyncIsNeverForgotten(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("no strace (package strace) to inject errors with")
	}
	if err := exec.Command(strace, "-o", os.DevNull, "true").Run(); err != nil {
		t.Skipf("strace may not trace here: %v", err)
	}
	ours := harness.Ours(t)
	st := ours.Format(t, 4<<20, 2)
	// Recovery of a clean store syncs nothing, so the first sync is a client's.
	srv := ours.ServeUnder(t, st, strace, "-f", "-o", os.DevNull, "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=1")
	c, err := venti.Dial(t.Context(), srv.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	typ, data := block(1)
	score, err := c.WriteBlock(t.Context(), typ, data)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := c.Sync(t.Context()); err == nil {
			t.Fatalf("sync %d after a failed fdatasync succeeds\n%s", i+1, srv.Log())
		}
	}
	buf := make([]byte, venti.MaxBlockSize)
	if n, err := c.ReadBlock(t.Context(), score, typ, buf); err != nil || string(buf[:n]) != string(data) {
		t.Errorf("a read after the failure: %d bytes, %v", n, err)
	}
	srv.Kill()

	srv = ours.Serve(t, st)
	c, err = venti.Dial(t.Context(), srv.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.WriteBlock(t.Context(), typ, data); err != nil {
		t.Fatal(err)
	}
	if err := c.Sync(t.Context()); err != nil {
		t.Fatalf("sync after a restart: %v", err)
	}
	if err := verify(t.Context(), srv.Addr, []acked{{1, score}}); err != nil {
		t.Error(err)
	}
	srv.Stop(t)
	if out, errOut, err := ours.Try(t, nil, "venti/checkarenas", "-a", st.Arenas()); err != nil {
		t.Error(fmt.Errorf("checkarenas: %w\n%s%s", err, out, errOut))
	}
}
