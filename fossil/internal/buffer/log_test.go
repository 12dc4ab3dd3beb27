package buffer

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"strata/fossil/internal/format"
	"strata/internal/disk"
)

// testLog returns an empty log of two runs on a disk.
func testLog(t testing.TB, m *disk.Machine) *redo {
	h, err := format.Layout(2<<20, 1024)
	if err != nil {
		t.Fatal(err)
	}
	return newRedo(m.NewDisk("log", 2<<20), &h, []run{{100, 3}, {10, 5}})
}

// TestLogBytes holds the formats to bytes; sha256sum(1) made the sums.
func TestLogBytes(t *testing.T) {
	table := packTable([]run{{0x100, 3}})
	want := "5742a1f0" + "0001" + "0001" + "00000100" + "00000003"
	want += "fd39bcdcf33d351444570dabe961d1c7"
	if got := hex.EncodeToString(table[:32]); got != want || len(table) != sectorSize {
		t.Errorf("table %s, want %s", got, want)
	}
	changes := appendWrites(nil, 0x13, []byte("abcdefgh"), []byte("abcXefgh"))
	changes = appendForget(changes, 0x14)
	changes = appendIntent(changes, &intent{1, 2, 3, 4, 5, 6})
	changes = appendDone(changes, 1)
	want = "77" + "00000013" + "00000003" + "00000001" + "58" +
		"66" + "00000014" +
		"69" + "0000000000000001" + "02" + "00000003" + "00000004" + "00000005" + "0000000000000006" +
		"64" + "0000000000000001"
	if got := hex.EncodeToString(changes); got != want {
		t.Errorf("changes %s, want %s", got, want)
	}
	m := disk.NewMachine()
	l := testLog(t, m)
	l.session, l.seq = 0x0102030405060708, 9
	if err := l.append(changes); err != nil {
		t.Fatal(err)
	}
	record := make([]byte, sectorSize)
	if err := disk.ReadFull(l.file, record, l.h.Offset(l.h.Data+100)+logHeaderBytes); err != nil {
		t.Fatal(err)
	}
	want = "5742a1f2" + fmt.Sprintf("%08x", len(changes)) + "0102030405060708" + "0000000000000009" +
		"fbec4d67603b791ac4e478a915985794" + want + strings.Repeat("00", sectorSize-recordHeader-len(changes))
	if got := hex.EncodeToString(record); got != want {
		t.Errorf("record\n%s, want\n%s", got, want)
	}
}

// TestLogRing appends more than the log holds, with cuts between, and reads
// what is left after each.
func TestLogRing(t *testing.T) {
	m := disk.NewMachine()
	l := testLog(t, m)
	if err := l.begin(); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	var want [][]byte
	for i := range 300 {
		changes := bytes.Repeat([]byte{byte(i)}, rng.IntN(1500))
		if len(changes) > l.room(0) {
			if err := l.cut(); err != nil {
				t.Fatal(err)
			}
			want = nil
		}
		if err := l.append(changes); err != nil {
			t.Fatal(err)
		}
		want = append(want, changes)

		r := newRedo(l.file, l.h, l.runs)
		if err := r.readHeader(); err != nil {
			t.Fatal(err)
		}
		for n, w := range want {
			got, ok, err := r.next()
			if err != nil || !ok || !bytes.Equal(got, w) {
				t.Fatalf("after %d: record %d of %d: %d bytes, %v, %v", i, n, len(want), len(got), ok, err)
			}
		}
		if _, ok, err := r.next(); ok || err != nil {
			t.Fatalf("after %d: one more record, %v", i, err)
		}
	}
}

// TestLogSessions begins a session with a log that another program has left:
// nothing of it is found.
func TestLogSessions(t *testing.T) {
	m := disk.NewMachine()
	l := testLog(t, m)
	for i := range 5 {
		l = newRedo(l.file, l.h, l.runs)
		if err := l.begin(); err != nil {
			t.Fatal(err)
		}
		for n := range 2 {
			if err := l.append(fmt.Appendf(nil, "session %d record %d", i, n)); err != nil {
				t.Fatal(err)
			}
			r := newRedo(l.file, l.h, l.runs)
			if err := r.readHeader(); err != nil {
				t.Fatal(err)
			}
			got, ok, err := r.next()
			if want := fmt.Sprintf("session %d record 0", i); err != nil || !ok || string(got) != want {
				t.Fatalf("session %d: found %q, %v, %v", i, got, ok, err)
			}
		}
		for range i { // headers in either sector
			if err := l.cut(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestLogDamage has the log end at a record with any byte wrong.
func TestLogDamage(t *testing.T) {
	m := disk.NewMachine()
	l := testLog(t, m)
	if err := l.begin(); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := l.append(bytes.Repeat([]byte{byte(i + 1)}, 600)); err != nil {
			t.Fatal(err)
		}
	}
	at := l.h.Offset(l.h.Data+100) + logHeaderBytes + 1024 // the second record's
	for _, off := range []int64{0, 4, 7, 8, 16, 24, recordHeader, recordHeader + 599} {
		b := make([]byte, 1)
		l.file.ReadAt(b, at+off)
		l.file.WriteAt([]byte{b[0] ^ 1}, at+off)
		r := newRedo(l.file, l.h, l.runs)
		if err := r.readHeader(); err != nil {
			t.Fatal(err)
		}
		n := 0
		for ; ; n++ {
			if _, ok, err := r.next(); err != nil {
				t.Fatal(err)
			} else if !ok {
				break
			}
		}
		if n != 1 {
			t.Errorf("byte %d wrong: %d records, want 1", off, n)
		}
		l.file.WriteAt(b, at+off)
	}
	for i := range int64(2) {
		if err := l.do(make([]byte, 1), i*sectorSize, l.write); err != nil {
			t.Fatal(err)
		}
	}
	if err := newRedo(l.file, l.h, l.runs).readHeader(); !errors.Is(err, errLog) {
		t.Errorf("no header: %v", err)
	}
}

func FuzzTable(f *testing.F) {
	f.Add(packTable([]run{{1, 2}, {7, 3}}))
	f.Add(packTable(make([]run, maxRuns)))
	f.Fuzz(func(t *testing.T, b []byte) {
		runs, ok := unpackTable(b, 1000)
		if !ok {
			return
		}
		for _, r := range runs {
			if r.addr+r.blocks > 1000 || r.blocks == 0 {
				t.Errorf("run %+v", r)
			}
		}
		if again, ok := unpackTable(packTable(runs), 1000); !ok || fmt.Sprint(again) != fmt.Sprint(runs) {
			t.Errorf("%v, then %v", runs, again)
		}
	})
}

func FuzzReplay(f *testing.F) {
	changes := appendWrites(nil, 200, make([]byte, 1024), bytes.Repeat([]byte{1}, 1024))
	f.Add(appendForget(changes, 200))
	f.Add(appendDone(appendIntent(nil, &intent{1, 2, 3, 4, 5, 6}), 1))
	h, err := format.Layout(2<<20, 1024)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, changes []byte) {
		r := newReplay(&h, func(uint32) ([]byte, error) { return make([]byte, 1024), nil })
		if err := r.apply(changes); err != nil && !errors.Is(err, errLog) {
			t.Error(err)
		}
		for n, b := range r.blocks {
			if n < h.Super || n >= h.End || len(b) != 1024 {
				t.Errorf("block %d of %d bytes", n, len(b))
			}
		}
	})
}

// FuzzWrites holds that applying the difference of two blocks to the one makes
// the other.
func FuzzWrites(f *testing.F) {
	f.Add([]byte("abcdefgh"), []byte("abXdefgY"))
	h, err := format.Layout(2<<20, 1024)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, x, y []byte) {
		old, new := make([]byte, 1024), make([]byte, 1024)
		copy(old, x)
		copy(new, y)
		r := newReplay(&h, func(uint32) ([]byte, error) { return bytes.Clone(old), nil })
		if err := r.apply(appendWrites(nil, 200, old, new)); err != nil {
			t.Fatal(err)
		}
		got := r.blocks[200]
		if got == nil {
			got = old
		}
		if !bytes.Equal(got, new) {
			t.Errorf("%x to %x: %x", old, new, got)
		}
	})
}
