package venti_test

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"strata/venti"
	"strata/venti/ventitest"
)

// The benchmarks here run client and server in one process, over a unix
// socket, on a store in memory. BenchmarkReadCached4K is to be set beside
// BenchmarkBare4K, which is the same traffic from a server that does nothing:
//
//	go test -run x -bench 4K -count 5 ./venti

const inFlight = 64

// bareRead asks b.N times for 4 KiB, inFlight at a time, and checks nothing.
func bareRead(b *testing.B, nc net.Conn, score venti.Score) {
	const size = 4096
	request := make([]byte, 30)
	binary.BigEndian.PutUint32(request, 26)
	request[4] = 12
	copy(request[6:], score[:])
	request[26] = 13
	binary.BigEndian.PutUint16(request[28:], size)
	in, out := bufio.NewReaderSize(nc, 64<<10), bufio.NewWriterSize(nc, 64<<10)
	send := func(tag int) {
		request[5] = byte(tag)
		out.Write(request)
	}
	for tag := range inFlight {
		send(tag)
	}
	out.Flush()
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		if in.Buffered() < 6+size {
			out.Flush()
		}
		head, err := in.Peek(6)
		if err != nil {
			b.Fatal(err)
		}
		if n := binary.BigEndian.Uint32(head); n != 2+size || head[4] != 13 {
			b.Fatalf("reply of %d bytes, type %d", n, head[4])
		}
		tag := int(head[5])
		in.Discard(6 + size)
		send(tag)
	}
}

// bareServer answers every request on nc with the same 4 KiB.
func bareServer(nc net.Conn) {
	in, out := bufio.NewReaderSize(nc, 64<<10), bufio.NewWriterSize(nc, 64<<10)
	reply := make([]byte, 6+4096)
	binary.BigEndian.PutUint32(reply, 2+4096)
	reply[4] = 13
	for {
		if in.Buffered() < 4 {
			out.Flush()
		}
		head, err := in.Peek(6)
		if err != nil {
			return
		}
		n := 4 + int(binary.BigEndian.Uint32(head))
		reply[5] = head[5]
		in.Discard(n)
		out.Write(reply)
	}
}

func BenchmarkBare4K(b *testing.B) {
	ln, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		bareServer(nc)
	})
	nc, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	bareRead(b, nc, venti.Score{})
}

func BenchmarkReadCached4K(b *testing.B) {
	st := ventitest.NewMemory()
	score, _ := st.WriteBlock(b.Context(), venti.DataType, ventitest.Block(1, 4096))
	nc, err := net.Dial("unix", serve(b, st, venti.ServerConfig{}))
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	io.WriteString(nc, "venti-04:02-bench\n\x00\x00\x00\x14\x04\x00\x00\x0204\x00\x09anonymous\x00\x00\x00")
	if _, err := io.ReadFull(nc, make([]byte, len("venti-04:02-strata\n")+19)); err != nil {
		b.Fatal(err)
	}
	bareRead(b, nc, score)
}

// BenchmarkClient sends each kind of request from inFlight goroutines through
// a Client. Reads and writes include the SHA-1 at both ends.
func BenchmarkClient(b *testing.B) {
	const blocks = 4096
	for _, tc := range []struct {
		name string
		size int
		op   func(c *venti.Client, i int, s venti.Score, data, buf []byte) error
	}{
		{"Probe", 64, func(c *venti.Client, i int, s venti.Score, data, buf []byte) error {
			_, err := c.HasBlock(b.Context(), s, venti.DataType)
			return err
		}},
		{"Read4K", 4096, func(c *venti.Client, i int, s venti.Score, data, buf []byte) error {
			_, err := c.ReadBlock(b.Context(), s, venti.DataType, buf)
			return err
		}},
		{"Write8K", 8192, func(c *venti.Client, i int, s venti.Score, data, buf []byte) error {
			_, err := c.WriteBlock(b.Context(), venti.DataType, data)
			return err
		}},
		{"WriteScored8K", 8192, func(c *venti.Client, i int, s venti.Score, data, buf []byte) error {
			return c.WriteScored(b.Context(), s, venti.DataType, data)
		}},
		{"WriteScored56K", venti.MaxBlockSize, func(c *venti.Client, i int, s venti.Score, data, buf []byte) error {
			return c.WriteScored(b.Context(), s, venti.DataType, data)
		}},
	} {
		b.Run(tc.name, func(b *testing.B) {
			st := ventitest.NewMemory()
			data := make([][]byte, min(blocks, 32<<20/tc.size))
			scores := make([]venti.Score, len(data))
			for i := range data {
				data[i] = ventitest.Block(uint64(i), tc.size)
				scores[i], _ = st.WriteBlock(b.Context(), venti.DataType, data[i])
			}
			c := dial(b, serve(b, st, venti.ServerConfig{}))
			if tc.name != "Probe" {
				b.SetBytes(int64(tc.size))
			}
			b.ReportAllocs()
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for range inFlight {
				wg.Go(func() {
					buf := make([]byte, tc.size)
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						k := int(i) % len(data)
						if err := tc.op(c, k, scores[k], data[k], buf); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}
