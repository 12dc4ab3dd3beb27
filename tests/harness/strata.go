package harness

import (
	"path/filepath"
	"testing"
)

// A Strata is a running strata up. The programs of its suite find it.
type Strata struct {
	Suite
	*Server
	Dir string
}

// Up starts strata up on a directory, with no addresses but its sockets, and
// waits until it answers. It is killed when the test ends, if it still runs.
func (s Suite) Up(t testing.TB, dir string, flags ...string) *Strata {
	t.Helper()
	sock := func(name string) string { return "unix!" + filepath.Join(dir, name) }
	args := append([]string{filepath.Join(s.Bin, "strata"), "up", "--local"}, flags...)
	srv := s.start(t, sock("nbd.sock"), append(args, dir)) // where it listens last
	s.Env = append(s.Env[:len(s.Env):len(s.Env)], "venti="+sock("venti.sock"), "vdisk="+sock("vdisk.sock"))
	return &Strata{Suite: s, Server: srv, Dir: dir}
}
