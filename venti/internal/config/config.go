// Package config reads the configuration of a Venti server, venti.conf(6):
// which partitions make up the index, where the server listens, how much
// memory its caches get. The text stands in a file of its own or inside one
// of the partitions (venti/conf puts it there).
//
//	c, err := config.Load("venti.conf")
//	for _, name := range c.Arenas { ... }
package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"strata/internal/disk"
	"strata/internal/netaddr"
	"strata/venti"
)

// A configuration is text, one setting a line:
//
//	keyword
//	keyword value
//
// separated by blanks and tabs. "#" starts a comment anywhere. A keyword is
// one of settings, below. plan9port ignores a last line that has no newline;
// here it counts like any other.
//
// A partition holds its configuration in the 8192 bytes at 248 KiB, the end
// of the area that no format uses:
//
//	"venti config\n" text NUL...
const (
	maxText        = 256 * 1024 // a longer file is a partition
	embeddedOffset = 248 * 1024
	embeddedSize   = 8 * 1024
	embeddedMagic  = "venti config\n"
)

// MaxName is the longest name of an index, section or arena in bytes.
const MaxName = 63

// A Config is the content of a configuration. What it does not set is zero:
// the default, which whoever uses the value chooses.
type Config struct {
	Index    string   // name of the index; never empty
	Arenas   []string // arena partitions, in the order of the index
	Sections []string // index sections, in the order of the index
	Bloom    string   // partition of the Bloom filter, or none

	// Additions of ours, files beside the partitions: Guards is "guards", the
	// SHA-256 of each clump, and Overflow "overflow", what full index buckets have
	// no room for.
	Guards, Overflow string

	// Mirror is "mirror", an addition of ours: the address of a server with the
	// same blocks, which is asked for those that are corrupt here, or none.
	Mirror string

	// Scrub and ScrubState are "scrub rate [file]", an addition of ours: how many
	// bytes of full arenas are checked a second, and where it is noted how far.
	Scrub      int64
	ScrubState string

	LumpMem  int64 // "mem": bytes for the lump cache
	BlockMem int64 // "bcmem": bytes for a disk block cache, which only Plan 9's server has
	IndexMem int64 // "icmem": bytes for the index cache

	Addr     string // "addr": where the server listens
	HTTPAddr string // "httpaddr"
	Webroot  string // "webroot": a directory of files for HTTP

	// Syslog is an addition of ours: messages go to the machine's syslog too.
	Syslog bool

	// Compression is "none", "whack" or "zstd", an addition of ours: how new
	// clumps are stored. Plan 9's server always uses whack.
	Compression string

	// Server has what "access" and "limit" say, additions of ours:
	//
	//	access allow|readonly|deny who...    (venti.ParseRule; the first about a client counts)
	//	limit connections|client-connections|queue|requests|bytes number
	//
	// A limit's number is a size; requests and bytes are a second's. They are
	// MaxConns, MaxPeerConns, MaxBytes, RequestRate and ByteRate of the server.
	Server venti.ServerConfig

	Mgr []string // what follows "mgr", a line each; for the mirror manager

	// Name is what errors call the file, and Lines says where in it each value
	// stands, the first time.
	Name  string
	Lines map[string]int

	// Warnings are lines that were understood and not obeyed, each with its
	// place in the file.
	Warnings []string
}

// A setting is what one keyword does with its value.
type setting struct {
	words   words
	repeats bool
	set     func(c *Config, value string) error
}

// words says how many words may follow a keyword.
type words int

const (
	oneWord words = iota
	noWord
	anyWords
)

// settings are the keywords. queuewrites made Plan 9's server answer syncs
// for lumps that were still in memory, and lost them; nothing that asks for
// it needs the loss, so it is accepted and not obeyed.
var settings = map[string]setting{
	"index":       {set: func(c *Config, v string) error { c.Index = v; return CheckName(v) }},
	"arenas":      {repeats: true, set: func(c *Config, v string) error { return addPart(&c.Arenas, v) }},
	"isect":       {repeats: true, set: func(c *Config, v string) error { return addPart(&c.Sections, v) }},
	"bloom":       {set: func(c *Config, v string) error { c.Bloom = v; return nil }},
	"guards":      {set: func(c *Config, v string) error { c.Guards = v; return nil }},
	"overflow":    {set: func(c *Config, v string) error { c.Overflow = v; return nil }},
	"mirror":      {set: setMirror},
	"scrub":       {words: anyWords, set: setScrub},
	"mem":         {set: func(c *Config, v string) (err error) { c.LumpMem, err = disk.ParseSize(v); return }},
	"bcmem":       {set: func(c *Config, v string) (err error) { c.BlockMem, err = disk.ParseSize(v); return }},
	"icmem":       {set: func(c *Config, v string) (err error) { c.IndexMem, err = disk.ParseSize(v); return }},
	"addr":        {set: func(c *Config, v string) error { c.Addr = v; return nil }},
	"httpaddr":    {set: func(c *Config, v string) error { c.HTTPAddr = v; return nil }},
	"webroot":     {set: func(c *Config, v string) error { c.Webroot = v; return nil }},
	"compression": {set: setCompression},
	"access":      {words: anyWords, repeats: true, set: func(c *Config, v string) error { return AddRule(&c.Server, v) }},
	"limit":       {words: anyWords, repeats: true, set: func(c *Config, v string) error { return SetLimit(&c.Server, v) }},
	"mgr":         {words: anyWords, repeats: true, set: func(c *Config, v string) error { c.Mgr = append(c.Mgr, v); return nil }},
	"queuewrites": {words: noWord, set: warn("queuewrites is ignored: it answers a sync before the data is safe")},
	"syslog":      {words: noWord, set: func(c *Config, _ string) error { c.Syslog = true; return nil }},
}

func addPart(list *[]string, name string) error {
	for _, have := range *list {
		if have == name {
			return fmt.Errorf("partition %s is named twice", name)
		}
	}
	*list = append(*list, name)
	return nil
}

func setCompression(c *Config, v string) error {
	if v != "none" && v != "whack" && v != "zstd" {
		return fmt.Errorf("unknown compression %q: want none, whack or zstd", v)
	}
	c.Compression = v
	return nil
}

func setScrub(c *Config, v string) (err error) {
	rate, file, _ := strings.Cut(v, " ")
	if strings.Contains(file, " ") {
		return fmt.Errorf("too many words in %q: want a rate and a file", v)
	}
	c.ScrubState = file
	c.Scrub, err = disk.ParseSize(rate)
	return err
}

func setMirror(c *Config, v string) error {
	c.Mirror = v
	_, err := netaddr.Parse(v, "venti")
	return err
}

// AddRule adds the access rule that a line has.
func AddRule(cfg *venti.ServerConfig, v string) error {
	r, err := venti.ParseRule(v)
	if err == nil {
		cfg.Access = append(cfg.Access, r)
	}
	return err
}

// SetLimit sets the limit that a line names, which must not be set.
func SetLimit(cfg *venti.ServerConfig, v string) error {
	name, number, _ := strings.Cut(v, " ")
	n, err := disk.ParseSize(number)
	if err != nil {
		return fmt.Errorf("limit %q: %w", v, err)
	}
	least, most := int64(1), int64(1)<<40
	var conns *int
	var field *int64
	switch name {
	case "connections":
		conns, most = &cfg.MaxConns, 1<<20
	case "client-connections":
		conns, most = &cfg.MaxPeerConns, 1<<20
	case "queue":
		field, least = &cfg.MaxBytes, 1<<20
	case "requests":
		field = &cfg.RequestRate
	case "bytes":
		field, least = &cfg.ByteRate, 64<<10
	default:
		return fmt.Errorf("unknown limit %q: want connections, client-connections, queue, requests or bytes", name)
	}
	switch {
	case n < least || n > most:
		return fmt.Errorf("limit %s is from %d to %d", name, least, most)
	case conns != nil && *conns != 0, field != nil && *field != 0:
		return fmt.Errorf("limit %s is set twice", name)
	case conns != nil:
		*conns = int(n)
	default:
		*field = n
	}
	return nil
}

func warn(text string) func(*Config, string) error {
	return func(c *Config, _ string) error {
		c.Warnings = append(c.Warnings, text)
		return nil
	}
}

// Blame puts the line that has a value, such as the name of a partition, in
// front of an error about it, if there is one.
func (c *Config) Blame(value string, err error) error {
	if n, ok := c.Lines[value]; ok && err != nil {
		return fmt.Errorf("%s:%d: %w", c.Name, n, err)
	}
	return err
}

// Parse reads a configuration from text; name is what errors and warnings
// call it.
func Parse(text []byte, name string) (*Config, error) {
	c := &Config{Name: name, Lines: make(map[string]int)}
	seen := make(map[string]bool)
	lineNumber := 0
	for line := range strings.Lines(string(text)) {
		lineNumber++
		fail := func(err error) (*Config, error) {
			return nil, fmt.Errorf("%s:%d: %w", name, lineNumber, err)
		}
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		keyword, value := fields[0], strings.Join(fields[1:], " ")
		s, known := settings[keyword]
		illegal := func(why string) (*Config, error) {
			return fail(fmt.Errorf("illegal line %q: %s", strings.Join(fields, " "), why))
		}
		switch {
		case !known:
			return illegal("unknown keyword")
		case s.words == oneWord && value == "":
			return illegal("a value is missing")
		case s.words == oneWord && len(fields) > 2, s.words == noWord && value != "":
			return illegal("too many words")
		case seen[keyword] && !s.repeats:
			return fail(fmt.Errorf("%s is set twice", keyword))
		}
		seen[keyword] = true
		if _, ok := c.Lines[value]; !ok {
			c.Lines[value] = lineNumber
		}
		warned := len(c.Warnings)
		if err := s.set(c, value); err != nil {
			return fail(err)
		}
		for i := warned; i < len(c.Warnings); i++ {
			c.Warnings[i] = fmt.Sprintf("%s:%d: %s", name, lineNumber, c.Warnings[i])
		}
	}
	if c.Index == "" {
		return nil, fmt.Errorf("%s: no index line", name)
	}
	return c, nil
}

// Load reads the configuration in the file or partition that name tells: all
// of it, or, when it is longer than 256 KiB and so a partition, the text
// embedded in it. It takes no lock: a server may be using the partition.
func Load(name string) (*Config, error) {
	p, err := disk.Open(name, disk.Options{ReadOnly: true, Unlocked: true})
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer p.Close()
	return Read(p, name)
}

// Read is Load for a file that is open; name is what errors and warnings
// call it.
func Read(f disk.File, name string) (*Config, error) {
	text, embedded, err := read(f, name)
	if err != nil {
		return nil, err
	}
	if embedded {
		text = append([]byte("\n"), text...) // the line of the magic counts
	}
	return Parse(text, name)
}

// read returns the text in f, and whether f is a partition that it is
// embedded in.
func read(f disk.File, name string) (text []byte, embedded bool, err error) {
	if size := f.Size(); size <= maxText {
		text := make([]byte, size)
		if err := disk.ReadFull(f, text, 0); err != nil {
			return nil, false, fmt.Errorf("%s: read configuration: %w", name, err)
		}
		return text, false, nil
	}
	block := make([]byte, embeddedSize)
	if err := disk.ReadFull(f, block, embeddedOffset); err != nil {
		return nil, true, fmt.Errorf("%s: read embedded configuration: %w", name, err)
	}
	text, ok := bytes.CutPrefix(block, []byte(embeddedMagic))
	if !ok {
		return nil, true, fmt.Errorf("%s: %w", name, ErrNoConfig)
	}
	text, _, _ = bytes.Cut(text, []byte{0})
	return text, true, nil
}

// ErrNoConfig is what Read returns for a partition without a configuration.
var ErrNoConfig = errors.New("no configuration in this partition")

// CheckName tells what is wrong with the name of an index, section or arena:
// names are 1 to 63 printable ASCII characters without blanks.
func CheckName(name string) error {
	if name == "" {
		return errors.New("empty name")
	}
	if len(name) > MaxName {
		return fmt.Errorf("name %q is longer than %d bytes", name, MaxName)
	}
	for _, b := range []byte(name) {
		if b <= ' ' || b >= 0x7f {
			return fmt.Errorf("name %q: only printable ASCII without blanks is allowed", name)
		}
	}
	return nil
}
