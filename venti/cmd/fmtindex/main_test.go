package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strata/internal/disk"
	"strata/venti/internal/arena"
	"strata/venti/internal/config"
	"strata/venti/internal/index"
)

// TestFmtindex makes an index, appends to it, and tries what must not be.
func TestFmtindex(t *testing.T) {
	dir := t.TempDir()
	open := func(name string, size int64) *disk.Partition {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := disk.Create(file, size); err != nil {
			t.Fatal(err)
		}
		p, err := disk.Open(file, disk.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, name := range []string{"a", "b"} {
		p := open(name+"rena", 8<<20)
		if _, err := arena.Format(t.Context(), p, arena.FormatConfig{Name: name, ArenaSize: 2 << 20}); err != nil {
			t.Fatal(err)
		}
		p.Close()
	}
	for _, name := range []string{"isect0", "isect1"} {
		p := open(name, 3<<20)
		if _, err := index.FormatSection(t.Context(), p, index.SectionConfig{Name: name}); err != nil {
			t.Fatal(err)
		}
		p.Close()
	}
	for _, tc := range []struct {
		name    string
		args    []string
		config  string
		status  int
		message string
	}{
		{"append to nothing", []string{"-a"}, "index x\narenas arena\nisect isect0\nisect isect1\n", 1, "part of no index"},
		{"no sections", nil, "index x\narenas arena\n", 1, "no sections"},
		{"format", nil, "index x\narenas arena\nisect isect0\nisect isect1\nbloom none\nqueuewrites\n", 0,
			"warning: CONF:6: queuewrites is ignored: it answers a sync before the data is safe\n" +
				"fmtindex: 4 arenas, 574 index buckets, 7,528,448 bytes storage\n"},
		{"again", nil, "index x\narenas arena\nisect isect0\nisect isect1\n", 0, "fmtindex: 4 arenas, 574 index buckets, 7,528,448 bytes storage\n"},
		{"another index", nil, "index y\narenas arena\nisect isect0\nisect isect1\n", 1, "already has the buckets [0,287) of index x"},
		{"fewer sections", nil, "index x\narenas arena\nisect isect0\n", 1, "already has the buckets"},
		{"append nothing", []string{"--append"}, "index x\narenas arena\nisect isect0\nisect isect1\n", 0, "fmtindex: 4 arenas, 574 index buckets, 7,528,448 bytes storage\n"},
		{"append in front", []string{"-a"}, "index x\narenas brena\narenas arena\nisect isect0\nisect isect1\n", 1, "new arenas go last"},
		{"append", []string{"-a"}, "index x\narenas arena\narenas brena\nisect isect0\nisect isect1\n", 0, "fmtindex: 8 arenas, 574 index buckets, 15,056,896 bytes storage\n"},
		{"take away", []string{"-a"}, "index x\narenas arena\nisect isect0\nisect isect1\n", 1, "only 4 are given"},
		{"two arguments", []string{"x"}, "", 2, "usage: venti/fmtindex [-a] venti.conf\n"},
		{"bad configuration", nil, "what x\n", 1, "CONF:1: illegal line"},
		{"missing partition", nil, "index x\narenas none\n", 1, "no such file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conf := filepath.Join(dir, "venti.conf")
			text := tc.config
			for _, key := range []string{"arenas ", "isect ", "bloom "} {
				text = strings.ReplaceAll(text, key, key+dir+"/")
			}
			if err := os.WriteFile(conf, []byte(text), 0o666); err != nil {
				t.Fatal(err)
			}
			var stdout, stderr bytes.Buffer
			if status := newCommand().Execute(t.Context(), append(tc.args, conf), nil, &stdout, &stderr); status != tc.status {
				t.Errorf("status %d, want %d", status, tc.status)
			}
			want := strings.ReplaceAll(tc.message, "CONF", conf)
			if got := stderr.String(); tc.status == 0 && got != want || !strings.Contains(got, want) {
				t.Errorf("stderr %q, want %q", got, want)
			}
		})
	}
	c, err := config.Parse([]byte("index x\narenas "+dir+"/arena\narenas "+dir+"/brena\nisect "+dir+"/isect0\nisect "+dir+"/isect1\n"), "")
	if err != nil {
		t.Fatal(err)
	}
	p, err := index.OpenParts(c, disk.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ix, err := index.Open("x", p.Sections, index.MapArenas(p.Arenas))
	if err != nil {
		t.Fatal(err)
	}
	if len(ix.Arenas) != 8 || ix.Arenas[7].Name != "b3" || ix.Arenas[7].Stop != index.FirstAddr+15056896 {
		t.Errorf("arenas %v", ix.Arenas)
	}
}
