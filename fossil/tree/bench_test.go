package tree

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"strata/fossil"
	"strata/internal/disk"
	"strata/internal/ninep"
	"strata/vac/meta"
	"strata/venti/ventitest"
)

// BenchmarkRead1M reads a file that is in memory through a unix socket, 9P2000.L.
func BenchmarkRead1M(b *testing.B) {
	ctx := context.Background()
	d := disk.NewMachine().NewDisk("part", 128<<20)
	if err := fossil.Format(ctx, d, fossil.FormatConfig{}); err != nil {
		b.Fatal(err)
	}
	fs, err := fossil.Open(d, fossil.Config{Interval: time.Hour, Memory: 128 << 20})
	if err != nil {
		b.Fatal(err)
	}
	defer fs.Close(ctx)
	const size = 32 << 20
	active, err := fs.Walk(ctx, "/active")
	if err != nil {
		b.Fatal(err)
	}
	file, err := active.Create(ctx, "f", 0o644|meta.Mode(0), "adm")
	if err == nil {
		_, err = file.WriteAt(ctx, ventitest.Block(1, size), 0, "adm")
	}
	if err != nil {
		b.Fatal(err)
	}
	ln, err := net.Listen("unix", filepath.Join(b.TempDir(), "9p"))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- ninep.NewServer(New(fs, Config{}), ninep.Config{}).Serve(ctx, ln) }()
	defer func() {
		cancel()
		<-served
	}()
	conn, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	c, err := ninep.NewClient(ctx, conn, ninep.ClientConfig{Dialect: ninep.Linux})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	root, err := c.Attach(ctx, "adm", "")
	var f *ninep.File
	if err == nil {
		f, err = root.Walk(ctx, "f")
	}
	if err == nil {
		err = f.Open(ctx, ninep.OREAD)
	}
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 1<<20)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	off := int64(0)
	for b.Loop() {
		if _, err := f.ReadAt(ctx, buf, off); err != nil {
			b.Fatal(err)
		}
		if off += int64(len(buf)); off == size {
			off = 0
		}
	}
}
