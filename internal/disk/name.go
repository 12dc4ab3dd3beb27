package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// splitName cuts a partition's name at its last colon. A name without one is
// a whole file.
func splitName(name string) (file, rng string, ranged bool) {
	i := strings.LastIndexByte(name, ':')
	if i < 0 {
		return name, "", false
	}
	return name[:i], name[i+1:], true
}

// parseRange reads what follows the colon: "lo-hi", "lo-", "-hi" or "lo",
// where an end that is absent or 0 is the end of the file, of size bytes.
func parseRange(text string, size int64) (lo, hi int64, err error) {
	loText, hiText, dash := strings.Cut(text, "-")
	if text == "" || dash && loText == "" && hiText == "" {
		return 0, 0, fmt.Errorf("bad range %q", text)
	}
	if loText != "" {
		if lo, err = ParseSize(loText); err != nil {
			return 0, 0, fmt.Errorf("bad range %q: %w", text, err)
		}
	}
	if hiText != "" {
		if hi, err = ParseSize(hiText); err != nil {
			return 0, 0, fmt.Errorf("bad range %q: %w", text, err)
		}
	}
	if hi == 0 {
		hi = size
	}
	if lo > hi || hi > size {
		return 0, 0, fmt.Errorf("range %q is outside the file's %d bytes", text, size)
	}
	return lo, hi, nil
}

// ParseSize reads a number of bytes written C's way (decimal, 0x hexadecimal
// or, after a 0, octal) with an optional k, m, g or t of either case.
func ParseSize(text string) (int64, error) {
	digits, shift := text, 0
	if text != "" {
		switch text[len(text)-1] | 0x20 {
		case 'k':
			shift = 10
		case 'm':
			shift = 20
		case 'g':
			shift = 30
		case 't':
			shift = 40
		}
	}
	if shift != 0 {
		digits = text[:len(text)-1]
	}
	base := 10
	switch {
	case len(digits) > 2 && (digits[:2] == "0x" || digits[:2] == "0X"):
		digits, base = digits[2:], 16
	case len(digits) > 1 && digits[0] == '0':
		digits, base = digits[1:], 8
	}
	n, err := strconv.ParseUint(digits, base, 63)
	if err != nil || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("bad size %q", text)
	}
	return int64(n) << shift, nil
}

const (
	sectorSize = 512

	// An MBR has four entries of 16 bytes at 446 and the mark 55 aa at 510.
	// In an entry the type is byte 4 and the first sector is bytes 8..11,
	// little-endian.
	mbrEntries   = 446
	mbrEntrySize = 16
	mbrPlan9     = 0x39
)

// plan9Part finds the sub-partition called name in a disk's Plan 9 table:
// lines "part name start end", in sectors, in sector 1 of the disk or, if
// there are none, in sector 1 of the first MBR partition of Plan 9's type, to
// whose start they are then relative.
func plan9Part(r io.ReaderAt, name string, size int64) (lo, hi int64, err error) {
	var mbr, table [sectorSize]byte
	var base int64
	if _, err := r.ReadAt(table[:], sectorSize); err != nil {
		return 0, 0, fmt.Errorf("read partition table: %w", err)
	}
	if !bytes.HasPrefix(table[:], []byte("part ")) {
		if _, err := r.ReadAt(mbr[:], 0); err != nil {
			return 0, 0, fmt.Errorf("read partition table: %w", err)
		}
		if mbr[510] != 0x55 || mbr[511] != 0xaa {
			return 0, 0, fmt.Errorf("no Plan 9 partition table")
		}
		for i := range 4 {
			e := mbr[mbrEntries+i*mbrEntrySize:]
			if e[4] == mbrPlan9 {
				base = int64(binary.LittleEndian.Uint32(e[8:])) * sectorSize
				break
			}
		}
		if base == 0 {
			return 0, 0, fmt.Errorf("no Plan 9 partition table")
		}
		if _, err := r.ReadAt(table[:], base+sectorSize); err != nil {
			return 0, 0, fmt.Errorf("read partition table: %w", err)
		}
	}
	text, _, _ := bytes.Cut(table[:], []byte{0})
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 4 || f[0] != "part" || f[1] != name {
			continue
		}
		start, err1 := strconv.ParseInt(f[2], 10, 54)
		end, err2 := strconv.ParseInt(f[3], 10, 54)
		if err1 != nil || err2 != nil || start < 0 || start > end || end > (size-base)/sectorSize {
			return 0, 0, fmt.Errorf("bad line %q in partition table", strings.TrimSpace(line))
		}
		return base + start*sectorSize, base + end*sectorSize, nil
	}
	return 0, 0, fmt.Errorf("no sub-partition %q", name)
}
