package buffer

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"

	"strata/fossil/internal/format"
	"strata/internal/disk"
)

// The log lies in runs of data blocks, which a table says that stands in the
// super block, in the sector behind what Plan 9's programs rewrite:
//
//	magic[4] version[2] n[2] {addr[4] blocks[4]}*n sum[16]
//
// Taken together they are one range of bytes. Its first two sectors are copies
// of the log's header; the one with the higher count that is sound is good:
//
//	magic[4] version[2] 0[2] session[8] count[8] tail[8] seq[8] sum[16]
//
// The rest is a ring of records. A position counts the bytes ever appended in
// a session; tail is that of the first record that matters and seq its
// number. A record is
//
//	magic[4] length[4] session[8] seq[8] sum[16] changes[length] 0...
//
// up to a multiple of sectorSize. It is sound if its session is the header's,
// its number follows, and its sum is right; the first that is not ends the log.
// A change is one of
//
//	'w' block[4] offset[4] length[4] data[length]    bytes of a block
//	'f' block[4]                                     what is above about this block is void
//	'i' id[8] type[1] addr[4] tag[4] epoch[4] leaf[8]    an intent, or how far it has come
//	'd' id[8]                                        an intent is done
//
// All integers are big-endian; block counts from the beginning of the
// partition. A sum is the first half of the SHA-256 of what precedes it; a
// record's, of its header up to there and its changes.
const (
	sectorSize = 512

	tableMagic     = 0x5742a1f0
	logMagic       = 0x5742a1f1
	recordMagic    = 0x5742a1f2
	logVersion     = 1
	sumSize        = 16
	maxRuns        = 50
	recordHeader   = 4 + 4 + 8 + 8 + sumSize
	logHeaderBytes = 2 * sectorSize

	changeWrite  = 'w'
	changeForget = 'f'
	changeIntent = 'i'
	changeDone   = 'd'

	intentSize = 1 + 8 + 1 + 4 + 4 + 4 + 8
)

// errLog is why a log cannot be replayed.
var errLog = errors.New("corrupted log")

// A run is a number of data blocks in a row.
type run struct{ addr, blocks uint32 }

func sum(parts ...[]byte) []byte {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)[:sumSize]
}

// packTable returns the sector that says where the log lies.
func packTable(runs []run) []byte {
	b := make([]byte, 0, sectorSize)
	be := binary.BigEndian
	b = be.AppendUint32(b, tableMagic)
	b = be.AppendUint16(b, logVersion)
	b = be.AppendUint16(b, uint16(len(runs)))
	for _, r := range runs {
		b = be.AppendUint32(b, r.addr)
		b = be.AppendUint32(b, r.blocks)
	}
	return append(b, sum(b)...)[:sectorSize]
}

// unpackTable returns where the log lies, among n data blocks. ok is false if
// there is none.
func unpackTable(b []byte, n uint32) (runs []run, ok bool) {
	be := binary.BigEndian
	if len(b) < sectorSize || be.Uint32(b) != tableMagic || be.Uint16(b[4:]) != logVersion {
		return nil, false
	}
	count := int(be.Uint16(b[6:]))
	end := 8 + 8*count
	if count == 0 || count > maxRuns || !bytes.Equal(b[end:end+sumSize], sum(b[:end])) {
		return nil, false
	}
	for i := range count {
		r := run{be.Uint32(b[8+8*i:]), be.Uint32(b[12+8*i:])}
		if r.blocks == 0 || r.addr >= n || r.blocks > n-r.addr {
			return nil, false
		}
		runs = append(runs, r)
	}
	return runs, true
}

// A redo is the log of a partition that is open for writing. The committer
// alone uses it.
type redo struct {
	file disk.File
	h    *format.Header
	runs []run
	ring int64 // bytes for records

	live    bool // the super block on the disk says that the log matters
	session uint64
	count   uint64
	tail    int64 // position of the first record that matters
	tailSeq uint64
	head    int64 // where the next goes
	seq     uint64
}

func newRedo(file disk.File, h *format.Header, runs []run) *redo {
	l := &redo{file: file, h: h, runs: runs}
	for _, r := range runs {
		l.ring += int64(r.blocks) * int64(h.BlockSize)
	}
	l.ring -= logHeaderBytes
	return l
}

// do calls f for each piece of [off, off+len(b)) of the log's bytes.
func (l *redo) do(b []byte, off int64, f func(b []byte, off int64) error) error {
	for _, r := range l.runs {
		size := int64(r.blocks) * int64(l.h.BlockSize)
		if off < size && len(b) > 0 {
			n := min(int64(len(b)), size-off)
			if err := f(b[:n], l.h.Offset(l.h.Data+r.addr)+off); err != nil {
				return err
			}
			b, off = b[n:], off+n
		}
		off -= size
	}
	return nil
}

// ringDo is do for a position in the ring.
func (l *redo) ringDo(b []byte, pos int64, f func(b []byte, off int64) error) error {
	at := pos % l.ring
	n := min(int64(len(b)), l.ring-at)
	if err := l.do(b[:n], logHeaderBytes+at, f); err != nil {
		return err
	}
	return l.do(b[n:], logHeaderBytes, f)
}

func (l *redo) write(b []byte, off int64) error {
	_, err := l.file.WriteAt(b, off)
	return err
}

func (l *redo) read(b []byte, off int64) error { return disk.ReadFull(l.file, b, off) }

// room returns how many bytes of changes the next record can hold. What one
// of all intents takes is kept free.
func (l *redo) room(intents int) int {
	return int(l.ring-(l.head-l.tail)) - recordHeader - sectorSize - recordBytes(intents*intentSize)
}

// recordBytes returns how long a record with n bytes of changes is.
func recordBytes(n int) int {
	return (recordHeader + n + sectorSize - 1) / sectorSize * sectorSize
}

// append writes a record. It is durable after a sync.
func (l *redo) append(changes []byte) error {
	b := make([]byte, 0, recordBytes(len(changes)))
	be := binary.BigEndian
	b = be.AppendUint32(b, recordMagic)
	b = be.AppendUint32(b, uint32(len(changes)))
	b = be.AppendUint64(b, l.session)
	b = be.AppendUint64(b, l.seq)
	b = append(b, sum(b, changes)...)
	b = append(b, changes...)
	b = b[:cap(b)]
	if err := l.ringDo(b, l.head, l.write); err != nil {
		return fmt.Errorf("append to log: %w", err)
	}
	l.head += int64(len(b))
	l.seq++
	return nil
}

// begin starts a session: what was in the log no longer matters. The count
// goes on, so that the header of the session before is not taken for newer.
func (l *redo) begin() error {
	if err := l.readHeader(); err != nil && !errors.Is(err, errLog) {
		return err
	}
	l.session = rand.Uint64()
	l.head, l.seq = 0, 1
	return l.cut()
}

// cut makes the log begin at its head. It is durable after a sync.
func (l *redo) cut() error { return l.cutAt(l.head, l.seq) }

func (l *redo) cutAt(pos int64, seq uint64) error {
	l.tail, l.tailSeq = pos, seq
	l.count++
	be := binary.BigEndian
	b := make([]byte, 0, sectorSize)
	b = be.AppendUint32(b, logMagic)
	b = be.AppendUint32(b, logVersion<<16)
	for _, v := range []uint64{l.session, l.count, uint64(l.tail), l.tailSeq} {
		b = be.AppendUint64(b, v)
	}
	b = append(b, sum(b)...)[:sectorSize]
	if err := l.do(b, int64(l.count%2)*sectorSize, l.write); err != nil {
		return fmt.Errorf("write log header: %w", err)
	}
	return nil
}

// readHeader finds the good one of both headers.
func (l *redo) readHeader() error {
	found := false
	be := binary.BigEndian
	for i := range int64(2) {
		b := make([]byte, sectorSize)
		if err := l.do(b, i*sectorSize, l.read); err != nil {
			return fmt.Errorf("read log header: %w", err)
		}
		const end = 8 + 4*8
		if be.Uint32(b) != logMagic || be.Uint32(b[4:]) != logVersion<<16 || !bytes.Equal(b[end:end+sumSize], sum(b[:end])) {
			continue
		}
		if count := be.Uint64(b[16:]); !found || count > l.count {
			found = true
			l.session, l.count = be.Uint64(b[8:]), count
			l.tail, l.tailSeq = int64(be.Uint64(b[24:])), be.Uint64(b[32:])
		}
	}
	if !found || l.tail < 0 || l.tail%sectorSize != 0 {
		return fmt.Errorf("%w: no good header", errLog)
	}
	l.head, l.seq = l.tail, l.tailSeq
	return nil
}

// next returns the changes of the record at the head, and moves the head past
// it. ok is false where the log ends.
func (l *redo) next() (changes []byte, ok bool, err error) {
	be := binary.BigEndian
	left := l.ring - (l.head - l.tail)
	if left < sectorSize {
		return nil, false, nil
	}
	first := make([]byte, sectorSize)
	if err := l.ringDo(first, l.head, l.read); err != nil {
		return nil, false, fmt.Errorf("read log: %w", err)
	}
	n := int64(be.Uint32(first[4:]))
	if be.Uint32(first) != recordMagic || be.Uint64(first[8:]) != l.session || be.Uint64(first[16:]) != l.seq ||
		n > left || int64(recordBytes(int(n))) > left {
		return nil, false, nil
	}
	b := make([]byte, recordBytes(int(n)))
	if err := l.ringDo(b, l.head, l.read); err != nil {
		return nil, false, fmt.Errorf("read log: %w", err)
	}
	changes = b[recordHeader : recordHeader+n]
	if !bytes.Equal(b[recordHeader-sumSize:recordHeader], sum(b[:recordHeader-sumSize], changes)) {
		return nil, false, nil
	}
	l.head += int64(len(b))
	l.seq++
	return changes, true, nil
}

// An intent is a tree whose blocks are to be closed, and how far that has
// come.
type intent struct {
	id    uint64
	typ   format.Type
	addr  uint32
	tag   uint32
	epoch uint32 // the close epoch
	leaf  int64  // blocks of level 0 before this one are done
}

func appendIntent(b []byte, in *intent) []byte {
	be := binary.BigEndian
	b = append(b, changeIntent)
	b = be.AppendUint64(b, in.id)
	b = append(b, byte(in.typ))
	b = be.AppendUint32(b, in.addr)
	b = be.AppendUint32(b, in.tag)
	b = be.AppendUint32(b, in.epoch)
	return be.AppendUint64(b, uint64(in.leaf))
}

func appendDone(b []byte, id uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, changeDone), id)
}

func appendForget(b []byte, block uint32) []byte {
	return binary.BigEndian.AppendUint32(append(b, changeForget), block)
}

// appendWrites adds what makes a block new of old. Differences that lie near
// each other are one change.
func appendWrites(b []byte, block uint32, old, new []byte) []byte {
	const gap = 16 // about what a change costs
	be := binary.BigEndian
	for i := 0; i < len(new); {
		if i+8 <= len(new) && be.Uint64(old[i:]) == be.Uint64(new[i:]) {
			i += 8
			continue
		}
		if old[i] == new[i] {
			i++
			continue
		}
		end := i + 1
		for j := end; j < len(new) && j-end < gap; j++ {
			if old[j] != new[j] {
				end = j + 1
			}
		}
		b = append(b, changeWrite)
		b = be.AppendUint32(b, block)
		b = be.AppendUint32(b, uint32(i))
		b = be.AppendUint32(b, uint32(end-i))
		b = append(b, new[i:end]...)
		i = end
	}
	return b
}

// A replay is what a log says is to be done.
type replay struct {
	h       *format.Header
	load    func(block uint32) ([]byte, error) // what a block's place has
	blocks  map[uint32][]byte                  // as they are to be
	intents map[uint64]intent
}

func newReplay(h *format.Header, load func(uint32) ([]byte, error)) *replay {
	return &replay{h, load, map[uint32][]byte{}, map[uint64]intent{}}
}

// apply takes in a record. It trusts nothing, though the sum was right.
func (r *replay) apply(changes []byte) error {
	be := binary.BigEndian
	take := func(n int) ([]byte, error) {
		if n < 0 || n > len(changes) {
			return nil, fmt.Errorf("%w: change is cut short", errLog)
		}
		b := changes[:n]
		changes = changes[n:]
		return b, nil
	}
	for len(changes) > 0 {
		kind := changes[0]
		changes = changes[1:]
		size := map[byte]int{changeWrite: 12, changeForget: 4, changeIntent: intentSize - 1, changeDone: 8}[kind]
		b, err := take(size)
		if err != nil {
			return err
		}
		switch kind {
		case changeWrite:
			block, off, n := be.Uint32(b), int64(be.Uint32(b[4:])), int64(be.Uint32(b[8:]))
			data, err := take(int(n))
			if err != nil {
				return err
			}
			if block < r.h.Super || block >= r.h.End || off+n > int64(r.h.BlockSize) {
				return fmt.Errorf("%w: %d bytes at %d of block %d", errLog, n, off, block)
			}
			if r.blocks[block] == nil {
				old, err := r.load(block)
				if err != nil {
					return err
				}
				r.blocks[block] = old
			}
			copy(r.blocks[block][off:], data)
		case changeForget:
			delete(r.blocks, be.Uint32(b))
		case changeIntent:
			in := intent{
				be.Uint64(b), format.Type(b[8]), be.Uint32(b[9:]), be.Uint32(b[13:]), be.Uint32(b[17:]), int64(be.Uint64(b[21:])),
			}
			if in.addr >= r.h.Blocks() || in.leaf < 0 || in.typ > 15 {
				return fmt.Errorf("%w: intent %+v", errLog, in)
			}
			r.intents[in.id] = in
		case changeDone:
			delete(r.intents, be.Uint64(b))
		default:
			return fmt.Errorf("%w: change of kind %#x", errLog, kind)
		}
	}
	return nil
}
