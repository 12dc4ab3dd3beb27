package xfs

import (
	"strata/internal/disk"
	"strata/vdisk/fsys"
)

// A log is sectors of 512 bytes, written round and round; how often, its cycle,
// stands in the first word of each but those that begin a record, which have
// a magic there and the cycle after it. A record is, by offset,
//
//	0x00 magic[4]  0x04 cycle[4]   0x08 version[4]  0x0c length[4]  0x10 lsn[8]
//	0x28 operations[4]             0x130 uuid[16]   0x140 size[4]
//
// where lsn is the cycle and the sector, and length the bytes that follow its
// headers: one sector, or with version 2 one for each 32 KiB of size. An
// operation begins with
//
//	0x00 transaction[4] length[4] client[1] flags[1]
//
// Unmounting writes a record of one operation with a flag of its own. If it is
// the last record, there is nothing to be replayed.
const (
	logSector   = 512
	magicRecord = 0xfeedbabe
	recordUnit  = 32 << 10
	flagUnmount = 0x20
	opFlags     = 9

	logChunk = 1 << 20
)

var errLog = fsys.Uncertain("its log has to be replayed")

// A record is the header of one in the log.
type record struct {
	sector  int64
	sectors int64 // with its headers
	header  int64 // sectors
	ops     uint32
	good    bool
}

// checkLog reads all of the log. Every sector up to the end of the last record
// must be of one cycle, and all behind it of the cycle before: otherwise
// something was being written.
func (v *volume) checkLog() error {
	n := v.logSize / logSector
	b := make([]byte, min(logChunk, v.logSize))
	var first uint32 // cycle
	end := n         // of that cycle
	var last record
	for off := int64(0); off < v.logSize; off += logChunk {
		piece := b[:min(logChunk, v.logSize-off)]
		if err := disk.ReadFull(v.r, piece, v.logOff+off); err != nil {
			return err
		}
		for i := off / logSector; len(piece) > 0; i, piece = i+1, piece[logSector:] {
			cycle := be32(piece)
			head := cycle == magicRecord
			if head {
				cycle = be32(piece[4:])
			}
			if i == 0 {
				first = cycle
			}
			if cycle != first && end == n {
				end = i
			}
			switch {
			case i < end && head:
				last = v.record(piece[:logSector], i, cycle)
			case i >= end && cycle != first-1:
				return errLog
			}
		}
	}
	if first == 0 || !last.good || last.sector+last.sectors != end || last.ops != 1 {
		return errLog
	}
	op := make([]byte, logSector)
	if err := disk.ReadFull(v.r, op, v.logOff+(last.sector+last.header)*logSector); err != nil {
		return err
	}
	if op[opFlags] != flagUnmount {
		return errLog
	}
	return nil
}

// record reads the header of a record.
func (v *volume) record(b []byte, sector int64, cycle uint32) record {
	length, size := int64(be32(b[0x0c:])), int64(be32(b[0x140:]))
	r := record{sector: sector, header: 1, ops: be32(b[0x28:])}
	version := be32(b[0x08:])
	if version == 2 && size > recordUnit {
		r.header = (size + recordUnit - 1) / recordUnit
	}
	r.sectors = r.header + (length+logSector-1)/logSector
	r.good = (version == 1 || version == 2) && be64(b[0x10:]) == uint64(cycle)<<32|uint64(sector) &&
		length > 0 && [16]byte(b[0x130:]) == v.uuid
	return r
}
