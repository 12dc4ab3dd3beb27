package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"strata/internal/disk"
	"strata/venti"
	"strata/venti/internal/arena"
	"strata/venti/internal/bloom"
	"strata/venti/internal/config"
	"strata/venti/internal/index"
)

// OpenConf opens the store that a configuration describes, in a file or
// embedded in a partition (venti.conf(6)), and locks its partitions until
// Close. What is set in cfg goes before what the configuration says; cfg has
// no files.
func OpenConf(ctx context.Context, name string, cfg Config) (*Store, error) {
	conf, err := config.Load(name)
	if err != nil {
		return nil, err
	}
	if cfg.Logger != nil {
		for _, w := range conf.Warnings {
			cfg.Logger.Warn("configuration", "line", w)
		}
	}
	if cfg.LumpMem == 0 {
		cfg.LumpMem = conf.LumpMem
	}
	if cfg.IndexMem == 0 {
		cfg.IndexMem = conf.IndexMem
	}
	if cfg.Compression == "" {
		cfg.Compression = conf.Compression
	}
	if cfg.Mirror == nil && conf.Mirror != "" {
		cfg.Mirror = OpenMirror(conf.Mirror)
	}
	if cfg.Scrub == 0 {
		cfg.Scrub = conf.Scrub
	}
	cfg.Index = conf.Index
	var owned []*disk.Partition
	closeAll := func() {
		for _, p := range owned {
			p.Close()
		}
	}
	open := func(name string) (disk.File, error) {
		p, err := disk.Open(name, disk.Options{ReadOnly: cfg.ReadOnly})
		if err != nil {
			return nil, conf.Blame(name, err)
		}
		owned = append(owned, p)
		return p, nil
	}
	for _, n := range conf.Arenas {
		f, err := open(n)
		if err != nil {
			closeAll()
			return nil, err
		}
		cfg.Arenas = append(cfg.Arenas, f)
	}
	for _, n := range conf.Sections {
		f, err := open(n)
		if err != nil {
			closeAll()
			return nil, err
		}
		cfg.Sections = append(cfg.Sections, f)
	}
	if conf.Bloom != "" {
		if cfg.Bloom, err = open(conf.Bloom); err != nil {
			closeAll()
			return nil, err
		}
	}
	if conf.Overflow != "" {
		if cfg.Overflow, err = openOverflow(conf.Overflow, cfg, open); err != nil {
			closeAll()
			return nil, err
		}
	}
	if conf.Guards != "" {
		if !cfg.ReadOnly {
			err = makeGuards(conf.Guards, cfg.Arenas)
		}
		if err == nil {
			cfg.Guards, err = open(conf.Guards)
		}
		if err != nil {
			closeAll()
			return nil, fmt.Errorf("guards: %w", err)
		}
	}
	if conf.ScrubState != "" && cfg.Scrub > 0 && !cfg.ReadOnly {
		if err = disk.Create(conf.ScrubState, scrubFile); err == nil || errors.Is(err, fs.ErrExist) {
			cfg.ScrubState, err = open(conf.ScrubState)
		}
		if err != nil {
			closeAll()
			return nil, fmt.Errorf("scrub: %w", err)
		}
	}
	s, err := Open(ctx, cfg)
	if err != nil {
		closeAll()
		return nil, err
	}
	s.owned = owned
	return s, nil
}

// openOverflow opens the overflow of an index, which it makes if there is none.
func openOverflow(name string, cfg Config, open func(string) (disk.File, error)) (disk.File, error) {
	if !cfg.ReadOnly {
		var sections []*index.Section
		for _, f := range cfg.Sections {
			s, err := index.OpenSection(f)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", fileName(f), err)
			}
			sections = append(sections, s)
		}
		if err := index.CreateOverflow(name, sections); err != nil {
			return nil, err
		}
	}
	f, err := open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // it has no entries
	}
	return f, err
}

// ServerConf returns what a configuration says of who may use the store's
// server, and how much, in its access and limit lines. access and limits are
// more such lines, without the keyword: where there is one rule, those of the
// configuration do not count, and a limit goes before the configuration's.
func ServerConf(name string, access, limits []string) (venti.ServerConfig, error) {
	var cfg venti.ServerConfig
	conf, err := config.Load(name)
	if err != nil {
		return cfg, err
	}
	for _, text := range access {
		if err := config.AddRule(&cfg, text); err != nil {
			return cfg, err
		}
	}
	for _, text := range limits {
		if err := config.SetLimit(&cfg, text); err != nil {
			return cfg, err
		}
	}
	c := &conf.Server
	if len(cfg.Access) == 0 {
		cfg.Access = c.Access
	}
	cfg.MaxConns = cmp.Or(cfg.MaxConns, c.MaxConns)
	cfg.MaxPeerConns = cmp.Or(cfg.MaxPeerConns, c.MaxPeerConns)
	cfg.MaxBytes = cmp.Or(cfg.MaxBytes, c.MaxBytes)
	cfg.RequestRate = cmp.Or(cfg.RequestRate, c.RequestRate)
	cfg.ByteRate = cmp.Or(cfg.ByteRate, c.ByteRate)
	return cfg, nil
}

// A FormatConfig says what Format makes. Its zero value is a small store.
type FormatConfig struct {
	Space       int64  // bytes for clumps, 0 means DefaultSpace
	ArenaSize   int64  // bytes in an arena, 0 means 512 MiB, or less in a small store
	Index       string // name of the index, empty means "main"
	Compression string // as in Config
	Addr        string // where a server of it listens; empty means the default
}

// DefaultSpace is the space of FormatConfig's zero value, in bytes.
const DefaultSpace = 16 << 30

// How large the parts of a store are. The files are sparse.
const (
	// indexShare of Space is for the index: buckets are half full when the
	// arenas are full of blocks that take 2 KiB each.
	indexShare = 5.0 / 100
	// blockSpace is what a block is expected to take, for the Bloom filter.
	blockSpace = 4 << 10
	minSpace   = 4 << 20
)

// The files that Format makes in a store's directory.
const (
	ArenasFile = "arenas"
	IndexFile  = "isect"
	BloomFile  = "bloom"
	ConfFile   = "venti.conf"

	// Made when the store is first opened, if the configuration names them.
	OverflowFile = "overflow"
	ScrubFile    = "scrub"
)

// Format makes an empty store of three files, and the configuration that
// OpenConf takes, in a directory that exists. It returns the name of the
// configuration, which comes last: there is a store or there is none. The
// error is fs.ErrExist if one of the files is there already.
func Format(ctx context.Context, dir string, cfg FormatConfig) (conf string, err error) {
	dir, err = filepath.Abs(dir)
	if err == nil && strings.ContainsAny(dir, " \t\n#") {
		err = errors.New("a configuration cannot name a directory with blanks or # in its name")
	}
	if err == nil {
		conf, err = cfg.format(ctx, dir)
	}
	if err != nil {
		return "", fmt.Errorf("format store in %s: %w", dir, err)
	}
	return conf, nil
}

func (cfg *FormatConfig) format(ctx context.Context, dir string) (string, error) {
	if cfg.Space == 0 {
		cfg.Space = DefaultSpace
	}
	if cfg.Space < minSpace {
		return "", fmt.Errorf("%d bytes are too few: the least is %d", cfg.Space, minSpace)
	}
	if cfg.ArenaSize == 0 {
		cfg.ArenaSize = min(arena.DefaultArenaSize, max(1<<20, cfg.Space/8))
	}
	if cfg.Index == "" {
		cfg.Index = "main"
	}
	if cfg.Addr == "" {
		cfg.Addr = "tcp!127.0.0.1!17034"
	}
	names := []string{ArenasFile, IndexFile, BloomFile, ConfFile}
	for _, n := range names {
		if _, err := os.Lstat(filepath.Join(dir, n)); err == nil {
			return "", fmt.Errorf("%s: %w", n, fs.ErrExist)
		}
	}
	// Files get their names when all of them are whole.
	path := func(name string) string { return filepath.Join(dir, name) }
	temp := func(name string) string { return path(name + ".new") }
	for _, n := range names {
		if err := os.Remove(temp(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	blocks := cfg.Space / blockSpace
	bloomSize := int64(bloom.MinSize)
	for bloomSize < bloom.MaxSize && bloomSize < 2*blocks {
		bloomSize *= 2
	}
	var arenas *arena.Partition
	var section *index.Section
	for _, f := range []struct {
		name   string
		size   int64
		format func(disk.File) error
	}{
		{ArenasFile, cfg.Space + 1<<20, func(f disk.File) (err error) {
			arenas, err = arena.Format(ctx, f, arena.FormatConfig{Name: "arena", ArenaSize: cfg.ArenaSize})
			return err
		}},
		{IndexFile, int64(float64(cfg.Space)*indexShare) + 2<<20, func(f disk.File) (err error) {
			if section, err = index.FormatSection(ctx, f, index.SectionConfig{Name: "isect0"}); err != nil {
				return err
			}
			_, err = index.Format(cfg.Index, []*index.Section{section}, indexArenas(arenas))
			return err
		}},
		{BloomFile, bloomSize, func(f disk.File) error {
			return bloom.Format(ctx, f, bloom.FormatConfig{Blocks: blocks})
		}},
	} {
		if err := disk.Create(temp(f.name), f.size); err != nil {
			return "", err
		}
		p, err := disk.Open(temp(f.name), disk.Options{})
		if err != nil {
			return "", err
		}
		err = f.format(p)
		if err = errors.Join(err, p.Close()); err != nil {
			return "", err
		}
	}
	if err := writeFile(temp(ConfFile), cfg.text(dir)); err != nil {
		return "", err
	}
	for _, n := range names {
		if err := os.Rename(temp(n), path(n)); err != nil {
			return "", err
		}
	}
	return path(ConfFile), disk.SyncDir(dir)
}

// writeFile makes a file and syncs it.
func writeFile(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// indexArenas returns what an index is to know of the arenas of a partition.
func indexArenas(p *arena.Partition) []index.Arena {
	var list []index.Arena
	for _, e := range p.Arenas {
		list = append(list, index.Arena{Name: e.Name, Size: e.Stop - e.Start - 2*int64(p.BlockSize)})
	}
	return list
}

// text returns the configuration.
func (cfg *FormatConfig) text(dir string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "# A Venti store: see venti.conf(6).\nindex %s\n", cfg.Index)
	fmt.Fprintf(&b, "arenas %s\nisect %s\nbloom %s\n", filepath.Join(dir, ArenasFile), filepath.Join(dir, IndexFile), filepath.Join(dir, BloomFile))
	switch cfg.Compression {
	case CompressNone, CompressWhack:
		fmt.Fprintf(&b, "\n# Plan 9's programs read what this makes, but not this line.\ncompression %s\n", cfg.Compression)
	case CompressZstd:
		fmt.Fprintf(&b, "\n# New blocks are compressed in a way that Plan 9's programs do not read. Without\n"+
			"# this line new ones are as they like them; a copy made over the network is, too.\ncompression %s\n"+
			"# What the index has no room for, which they do not read either. Empty, it may go.\noverflow %s\n"+
			"# Full arenas are checked, as many bytes a second, and how far that is stands in a file.\nscrub %d %s\n",
			cfg.Compression, filepath.Join(dir, OverflowFile), DefaultScrub, filepath.Join(dir, ScrubFile))
	}
	fmt.Fprintf(&b, "\naddr %s\n", cfg.Addr)
	return []byte(b.String())
}
