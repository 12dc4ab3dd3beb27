package qcow2

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

// What Write makes: clusters of 64 KiB, counted in 16 bits.
const (
	writeBits     = 16
	writeCluster  = 1 << writeBits
	perL2         = writeCluster / 8
	perRefcount   = writeCluster / 2
	refcountOrder = 4
	// readBytes is how much of the disk is read at once.
	readBytes = 32 * writeCluster
)

// A Source is a disk to be written as an image.
type Source interface {
	Size() int64
	// ReadAtContext fills p, which lies on the disk.
	ReadAtContext(ctx context.Context, p []byte, off int64) (n int, err error)
	// NextData returns the first range at or after off that may hold a byte
	// that is not zero, or io.EOF when only holes follow.
	NextData(ctx context.Context, off int64) (start, end int64, err error)
}

// Write writes the disk src as an image of version 3 to w, which is empty.
// Clusters of zeros are left out. progress, if not nil, is called now and then
// with how many bytes of the disk, holes included, are done. After an error
// there is no image: the header comes last.
func Write(ctx context.Context, w io.WriterAt, src Source, progress func(done int64)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	size := src.Size()
	clusters := (size + writeCluster - 1) / writeCluster
	wr := &writer{w: w, l1: make([]uint64, (clusters+perL2-1)/perL2), l2: make([]byte, writeCluster), table: -1}
	if len(wr.l1) > maxL1/8 {
		return fmt.Errorf("a disk of %d bytes is too large for clusters of %d", size, writeCluster)
	}
	l1Clusters := (int64(len(wr.l1))*8 + writeCluster - 1) / writeCluster
	wr.next = 1 + l1Clusters // behind the header and that

	// One goroutine reads ahead, as far as the channel is long.
	type chunk struct {
		off  int64
		data []byte
		err  error
	}
	chunks, read := make(chan chunk, 2), make(chan struct{})
	go func() {
		defer close(read)
		defer close(chunks)
		err := eachChunk(ctx, src, func(off int64, data []byte) error {
			select {
			case chunks <- chunk{off: off, data: data}:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if err != nil {
			select {
			case chunks <- chunk{err: err}:
			case <-ctx.Done():
			}
		}
	}()
	defer func() { cancel(); <-read }()
	for c := range chunks {
		if c.err != nil {
			return c.err
		}
		if err := wr.write(c.off, c.data); err != nil {
			return err
		}
		if progress != nil {
			progress(min(c.off+int64(len(c.data)), size))
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return wr.finish(size)
}

// eachChunk calls f for the data of the disk, in pieces that begin and end
// with clusters. What lies behind the end of the disk is zeros.
func eachChunk(ctx context.Context, src Source, f func(off int64, data []byte) error) error {
	size := src.Size()
	for off := int64(0); off < size; {
		start, end, err := src.NextData(ctx, off)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		start = max(off, start/writeCluster*writeCluster)
		end = (end + writeCluster - 1) / writeCluster * writeCluster
		for start < end && start < size {
			b := make([]byte, min(readBytes, end-start))
			have := b[:min(int64(len(b)), size-start)]
			if n, err := src.ReadAtContext(ctx, have, start); n < len(have) {
				if err == nil || err == io.EOF {
					err = io.ErrUnexpectedEOF
				}
				return err
			}
			if err := f(start, b); err != nil {
				return err
			}
			start += int64(len(b))
		}
		off = end
	}
	return nil
}

// A writer is an image that is being written.
type writer struct {
	w     io.WriterAt
	next  int64 // the first cluster of the file that is free
	l1    []uint64
	l2    []byte // of the table of that number
	table int64  // -1 for none
}

var zeroCluster [writeCluster]byte

// write writes clusters of the disk, whose offsets rise from call to call.
func (wr *writer) write(off int64, data []byte) error {
	// Clusters that follow one another go together.
	var run []byte
	at := wr.next
	flush := func() error {
		if len(run) == 0 {
			return nil
		}
		_, err := wr.w.WriteAt(run, at<<writeBits)
		run = nil
		return err
	}
	for i := 0; i < len(data); i += writeCluster {
		cluster := data[i : i+writeCluster]
		if bytes.Equal(cluster, zeroCluster[:]) {
			if err := flush(); err != nil {
				return err
			}
			continue
		}
		index := (off + int64(i)) >> writeBits
		if index/perL2 != wr.table {
			if err := flush(); err != nil {
				return err
			}
			if err := wr.endTable(); err != nil {
				return err
			}
			wr.table = index / perL2
		}
		if run == nil {
			at, run = wr.next, data[i:i]
		}
		run = run[:len(run)+writeCluster]
		binary.BigEndian.PutUint64(wr.l2[index%perL2*8:], uint64(wr.next)<<writeBits|bitCopied)
		wr.next++
	}
	return flush()
}

// endTable writes the table of level 2 that is being filled.
func (wr *writer) endTable() error {
	if wr.table < 0 {
		return nil
	}
	if _, err := wr.w.WriteAt(wr.l2, wr.next<<writeBits); err != nil {
		return err
	}
	wr.l1[wr.table] = uint64(wr.next)<<writeBits | bitCopied
	wr.next++
	wr.table = -1
	clear(wr.l2)
	return nil
}

// finish writes the tables that remain, and then the header.
func (wr *writer) finish(size int64) error {
	if err := wr.endTable(); err != nil {
		return err
	}
	l1 := make([]byte, len(wr.l1)*8)
	for i, e := range wr.l1 {
		binary.BigEndian.PutUint64(l1[8*i:], e)
	}
	if _, err := wr.w.WriteAt(l1, writeCluster); err != nil {
		return err
	}
	// All clusters up to the end are used once, also those of the counts.
	blocks, tables := int64(0), int64(0)
	for {
		total := wr.next + blocks + tables
		b := (total + perRefcount - 1) / perRefcount
		t := (b*8 + writeCluster - 1) / writeCluster
		if b == blocks && t == tables {
			break
		}
		blocks, tables = b, t
	}
	total := wr.next + blocks + tables
	counts := make([]byte, writeCluster)
	table := make([]byte, tables*writeCluster)
	for i := range blocks {
		clear(counts)
		for j := range min(perRefcount, total-i*perRefcount) {
			binary.BigEndian.PutUint16(counts[2*j:], 1)
		}
		at := (wr.next + i) << writeBits
		if _, err := wr.w.WriteAt(counts, at); err != nil {
			return err
		}
		binary.BigEndian.PutUint64(table[8*i:], uint64(at))
	}
	tableAt := (wr.next + blocks) << writeBits
	if _, err := wr.w.WriteAt(table, tableAt); err != nil {
		return err
	}
	if tables > math.MaxUint32 {
		return fmt.Errorf("%d clusters are too many", total)
	}
	h := make([]byte, 0, headerSize3+16)
	h = append(h, magic...)
	h = binary.BigEndian.AppendUint32(h, 3)
	h = append(h, make([]byte, 12)...) // no backing file
	h = binary.BigEndian.AppendUint32(h, writeBits)
	h = binary.BigEndian.AppendUint64(h, uint64(size))
	h = binary.BigEndian.AppendUint32(h, 0) // nor encryption
	h = binary.BigEndian.AppendUint32(h, uint32(len(wr.l1)))
	h = binary.BigEndian.AppendUint64(h, writeCluster)
	h = binary.BigEndian.AppendUint64(h, uint64(tableAt))
	h = binary.BigEndian.AppendUint32(h, uint32(tables))
	h = append(h, make([]byte, 12+24)...) // nor snapshots, nor features
	h = binary.BigEndian.AppendUint32(h, refcountOrder)
	h = binary.BigEndian.AppendUint32(h, headerSize3)
	h = append(h, make([]byte, 8)...) // the end of the extensions
	_, err := wr.w.WriteAt(h, 0)
	return err
}
