package workload

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// renames has several move files about at once, while their directories move
// too if the tree can do that, and others replace a file that is being read.
func renames(r *run) error {
	const movers, files = 3, 4
	dirs := 1
	if r.Can.Rename {
		dirs = 3
	}
	at := func(dir int) string { return filepath.Join(r.dir, fmt.Sprintf("d%d", dir)) }
	for d := range dirs {
		if err := os.Mkdir(at(d), 0o755); err != nil {
			return err
		}
	}
	rounds := 20 * r.Scale
	var errs [movers + 2]error
	var wg sync.WaitGroup
	for m := range movers {
		rnd := rand.New(rand.NewPCG(r.Seed, uint64(20+m)))
		wg.Go(func() { errs[m] = move(rnd, m, files, dirs, rounds, at) })
	}
	if r.Can.Rename {
		wg.Go(func() { errs[movers] = moveDir(at(1), rounds/2) })
	}
	if r.Can.Rename && r.Can.Removed {
		wg.Go(func() { errs[movers+1] = r.replace(filepath.Join(r.dir, "now"), rounds/2) })
	}
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	// Each file is somewhere, once, and itself.
	var found int
	for d := range dirs {
		list, err := os.ReadDir(at(d))
		if err != nil {
			return err
		}
		for _, e := range list {
			id, _, _ := strings.Cut(e.Name(), "-")
			if err := wantFile(filepath.Join(at(d), e.Name()), []byte(id)); err != nil {
				return err
			}
			found++
		}
	}
	if found != movers*files {
		return fmt.Errorf("%d files, want %d", found, movers*files)
	}
	return nil
}

// move gives mover m's files new names. It is the only one who moves them, but
// the directory may be on the move too: then the file is looked for again.
func move(rnd *rand.Rand, m, files, dirs, rounds int, at func(int) string) error {
	where := make([]string, files)
	for i := range where {
		id := fmt.Sprintf("m%df%d", m, i)
		where[i] = filepath.Join(at(0), id)
		if err := os.WriteFile(where[i], []byte(id), 0o600); err != nil {
			return err
		}
	}
	for k := range rounds {
		i := rnd.IntN(files)
		for {
			to := filepath.Join(at(rnd.IntN(dirs)), fmt.Sprintf("m%df%d-%d", m, i, k))
			err := os.Rename(where[i], to)
			if err == nil {
				where[i] = to
				break
			}
			if dirs == 1 || errno(err) != syscall.ENOENT {
				return err
			}
		}
	}
	return nil
}

// moveDir moves a directory away and back.
func moveDir(dir string, rounds int) error {
	for range rounds {
		if err := os.Rename(dir, dir+".away"); err != nil {
			return err
		}
		if err := os.Rename(dir+".away", dir); err != nil {
			return err
		}
	}
	return nil
}

// replace renames new files over one, of which a reader always sees all of
// some version.
func (r *run) replace(name string, rounds int) error {
	content := func(i int) []byte { return []byte(strings.Repeat(fmt.Sprintf("version %d\n", i), 500)) }
	if err := os.WriteFile(name, content(0), 0o600); err != nil {
		return err
	}
	stop := make(chan struct{})
	result := make(chan error, 1)
	go func() {
		for {
			b, err := os.ReadFile(name)
			for !r.Can.Reopen && errno(err) == syscall.ESTALE {
				b, err = os.ReadFile(name)
			}
			var i int
			if err == nil {
				_, err = fmt.Sscanf(string(b), "version %d\n", &i)
			}
			if err == nil && string(b) != string(content(i)) {
				err = fmt.Errorf("%s, being replaced: %s", name, difference(b, content(i)))
			}
			select {
			case <-stop:
				result <- err
				return
			default:
			}
			if err != nil {
				result <- err
				return
			}
		}
	}()
	var err error
	for i := 1; i <= rounds && err == nil; i++ {
		tmp := name + ".new"
		if err = os.WriteFile(tmp, content(i), 0o600); err == nil {
			err = os.Rename(tmp, name)
		}
	}
	close(stop)
	return errors.Join(err, <-result)
}
