package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"strata/fossil"
	"strata/fossil/console"
	"strata/internal/disk"
)

// The files of the file system.
const (
	fossilFile = "fossil"      // its partition
	fossilConf = "fossil.conf" // what its console is told at the start
)

const fossilConfText = `# What strata up tells Fossil's console when it starts; "help" there tells about the
# commands. A * is the file that the file system is in.
fsys main config *
fsys main open
# A snapshot each hour, kept for a day, and one for ever each night.
snaptime -a 0300 -s 60 -t 1440
`

// Of a file system that is made. The blocks are those of disks' regions, so
// that what is grafted shares with what was imported.
const (
	fossilBlock = 4096
	largeBuffer = 32 << 30
)

// openFossil opens the file system, which it makes if there is none, and
// announces its addresses.
func (s *suite) openFossil(ctx context.Context, opt upOptions) error {
	if err := s.makeFossil(ctx, opt); err != nil {
		return fmt.Errorf("make file system: %w", err)
	}
	_, memory, _ := opt.shares()
	s.fossil = console.New(console.Config{
		Memory: memory, Venti: s.store,
		Identity: s.identity, Users: s.identity.Users, Open: opt.Open, Dir: s.dir, Log: opt.Logger,
	})
	conf := filepath.Join(s.dir, fossilConf)
	text, err := os.ReadFile(conf)
	if err != nil {
		return err
	}
	var said strings.Builder
	if err := s.fossil.NewSession().BootLines(ctx, &said, conf, string(text), filepath.Join(s.dir, fossilFile)); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(said.String()))
	}
	socket := "unix!" + filepath.Join(s.dir, "fossil.sock")
	list := []console.ServiceConfig{
		{Addr: socket + opt.socketAttrs()},
		{Addr: "unix!" + filepath.Join(s.dir, "fscons.sock"), Console: true},
	}
	switch {
	case len(opt.Fossil) > 0:
		for _, addr := range opt.Fossil {
			list = append(list, console.ServiceConfig{Addr: addr})
		}
	case !opt.Local:
		list = append(list, console.ServiceConfig{Addr: fossilAddr})
	}
	for _, c := range list {
		addr, err := s.fossil.Serve(ctx, c)
		if err != nil {
			return err
		}
		service := "fossil"
		if c.Console {
			service = "fscons"
		}
		s.told = append(s.told, service+"\t"+addr)
	}
	return nil
}

// makeFossil makes a file system, unless there is one. It gets its name when
// it is whole.
func (s *suite) makeFossil(ctx context.Context, opt upOptions) error {
	name := filepath.Join(s.dir, fossilFile)
	switch _, err := os.Stat(name); {
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	size := opt.Buffer
	if size == 0 && opt.Size > 0 {
		size = min(opt.Size/2, largeBuffer)
	}
	if size == 0 {
		free, err := freeSpace(s.dir)
		if err != nil {
			return err
		}
		size = min(free/10*4, largeBuffer)
	}
	half := name + ".new"
	if err := os.Remove(half); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := disk.Create(half, size/fossilBlock*fossilBlock); err != nil {
		return err
	}
	if err := format(ctx, half); err != nil {
		return err
	}
	if err := s.furnish(ctx, half); err != nil {
		return err
	}
	conf := filepath.Join(s.dir, fossilConf)
	if _, err := os.Stat(conf); errors.Is(err, fs.ErrNotExist) {
		if err := os.WriteFile(conf, []byte(fossilConfText), 0o644); err != nil {
			return err
		}
	}
	if err := os.Rename(half, name); err != nil {
		return err
	}
	return disk.SyncDir(name)
}

// format makes a file a file system.
func format(ctx context.Context, name string) error {
	p, err := disk.Open(name, disk.Options{})
	if err != nil {
		return err
	}
	err = fossil.Format(ctx, p, fossil.FormatConfig{BlockSize: fossilBlock, Name: "strata"})
	return errors.Join(err, p.Close())
}

// furnish makes what a new file system has: a table of users with whoever
// runs this, who may use the console and has a directory, and one where all may
// write.
func (s *suite) furnish(ctx context.Context, name string) (err error) {
	host := console.New(console.Config{})
	defer func() { err = errors.Join(err, host.Close(context.WithoutCancel(ctx))) }()
	user := s.identity.Users.Name(uint32(os.Geteuid()))
	lines := []string{
		"fsys main config *",
		"fsys main open -V",
		"wstat /active - - adm d775 -",
		"create /active/usr adm sys d775",
		"create /active/tmp adm sys d777",
		"users -w",
	}
	switch user {
	case "adm", "none", "noworld", "sys":
	case "glenda":
		lines = append(lines, "create /active/usr/glenda glenda glenda d775", "uname adm +glenda")
	default:
		word := console.Join([]string{user})
		lines = append(lines, fmt.Sprintf("uname %s %s", word, word), fmt.Sprintf("uname adm +%s", user))
	}
	var said strings.Builder
	if err := host.NewSession().BootLines(ctx, &said, name, strings.Join(lines, "\n"), name); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(said.String()))
	}
	return nil
}
