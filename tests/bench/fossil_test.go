package bench

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"strata/fossil"
	"strata/internal/disk"
	"strata/tests/harness"
	"strata/vac/meta"
)

// The tree that BenchmarkFossilArchive archives.
const (
	archiveDirs  = 1000
	archiveFiles = 10 // in each
)

// BenchmarkFossilArchive has our fossil and plan9port's archive the same
// partition, 10,000 small files in 1,000 directories: each into the venti of its
// suite, and both into ours.
func BenchmarkFossilArchive(b *testing.B) {
	ours, theirs := harness.Ours(b), harness.Plan9(b)
	if !theirs.Has("fossil/fossil") {
		b.Skip("no Fossil in plan9port")
	}
	part := filepath.Join(b.TempDir(), "part")
	archivePartition(b, part)
	b.Run("own venti", func(b *testing.B) { archivePeers(b, part, ours, theirs, theirs) })
	b.Run("our venti", func(b *testing.B) { archivePeers(b, part, ours, theirs, ours) })
}

// archivePeers has both archive a partition, theirs into a server of the suite
// venti. Theirs waits ten seconds before it begins, which do not count.
func archivePeers(b *testing.B, part string, ours, theirs, venti harness.Suite) {
	suites, servers := []harness.Suite{ours, theirs}, []harness.Suite{ours, venti}
	var took [2]float64
	blocks := 0
	for b.Loop() {
		for i, s := range suites {
			srv := peerServe(b, servers[i], 512*mib, peerCache)
			s.Env = append(slices.Clone(s.Env), "venti="+srv.Addr)
			mine := filepath.Join(b.TempDir(), fmt.Sprint("part", i))
			if err := copyFile(mine, part); err != nil {
				b.Fatal(err)
			}
			begin := time.Now()
			f := s.ServeFossil(b, mine, "-AP")
			for !strings.Contains(f.Log(), "vac:") {
				if time.Since(begin) > 10*time.Minute {
					b.Fatalf("%s: no archive\n%s", s.Name, f.Log())
				}
				time.Sleep(10 * time.Millisecond)
			}
			t := time.Since(begin)
			if i == 1 {
				t -= 10 * time.Second
			}
			took[i] += t.Seconds()
			if m := sentBlocks.FindStringSubmatch(f.Log()); m != nil {
				k, _ := strconv.Atoi(m[1])
				blocks += k // theirs does not say
			}
			f.Kill()
			srv.Kill()
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(blocks)/took[0], "blocks/s")
	b.ReportMetric(float64(blocks)/took[1], "plan9port-blocks/s")
	b.ReportMetric(took[1]/took[0], "ratio")
	b.ReportMetric(10, "wanted")
}

// sentBlocks is what our fossil's log says of an archive.
var sentBlocks = regexp.MustCompile(`msg=archive .*blocks=(\d+)`)

// archivePartition makes a file system in which a snapshot waits to be
// archived.
func archivePartition(b *testing.B, name string) {
	b.Helper()
	ctx := b.Context()
	if err := disk.Create(name, 256*mib); err != nil {
		b.Fatal(err)
	}
	d, err := disk.Open(name, disk.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	if err := fossil.Format(ctx, d, fossil.FormatConfig{}); err != nil {
		b.Fatal(err)
	}
	fs, err := fossil.Open(d, fossil.Config{NoArchiver: true})
	if err != nil {
		b.Fatal(err)
	}
	data := make([]byte, archiveDirs*archiveFiles*2000)
	fillRandom(data)
	active, err := fs.Walk(ctx, "/active")
	for i := 0; i < archiveDirs && err == nil; i++ {
		var dir, f *fossil.File
		dir, err = active.Create(ctx, fmt.Sprint("dir", i), meta.ModeDir|0o755, "glenda")
		for k := 0; k < archiveFiles && err == nil; k++ {
			if f, err = dir.Create(ctx, fmt.Sprint("file", k), 0o644, "glenda"); err == nil {
				_, err = f.WriteAt(ctx, data[(i*archiveFiles+k)*2000:][:2000], 0, "glenda")
			}
		}
	}
	if err == nil {
		_, err = fs.Snapshot(ctx, fossil.SnapConfig{Archive: true})
	}
	if err == nil {
		err = fs.Close(ctx)
	}
	if err != nil {
		b.Fatal(err)
	}
}

func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	defer dst.Close()
	_, err = io.Copy(dst, src)
	return err
}
