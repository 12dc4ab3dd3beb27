package live

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"strata/vdisk"
)

const goldenBootSet = "boot 2026-11-27T05:00:00Z 2\n0 20480\n1048576 65536\n"

func TestBootSetFormat(t *testing.T) {
	b := &BootSet{Time: time.Date(2026, 11, 27, 6, 0, 0, 0, time.FixedZone("", 3600)), Ranges: []vdisk.Range{{Off: 0, Len: 20480}, {Off: 1 << 20, Len: 65536}}}
	if got := packBootSet(b); string(got) != goldenBootSet {
		t.Errorf("got %q, want %q", got, goldenBootSet)
	}
	if got, err := unpackBootSet([]byte(goldenBootSet)); err != nil || !got.Time.Equal(b.Time) || len(got.Ranges) != 2 || got.Ranges[1] != b.Ranges[1] {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := unpackBootSet(packBootSet(&BootSet{Off: true})); err != nil || !got.Off {
		t.Errorf("got %+v, %v", got, err)
	}
	const head = "boot 2026-11-27T05:00:00Z "
	for name, text := range map[string]string{
		"nothing": "", "no newline": "off", "another word": "on\n", "time": "boot yesterday 0\n", "number": head + "x\n", "negative number": head + "-1\n",
		"too many": head + "32769\n", "too few": head + "2\n0 4096\n", "more": head + "1\n0 4096\n8192 4096\n",
		"overlap": head + "2\n0 8192\n4096 4096\n", "twice": head + "3\n8192 4096\n0 4096\n8192 4096\n",
		"odd offset": head + "1\n1 4096\n", "odd length": head + "1\n0 1\n", "empty": head + "1\n0 0\n", "negative": head + "1\n-4096 4096\n",
		"too long": head + "1\n0 134221824\n", "too far": head + "1\n9223372036854771712 4096\n", "overflow": head + "1\n99999999999999999999 4096\n",
		"spelling": head + "1\n00 4096\n", "zone": "boot 2026-11-27T05:00:00+01:00 0\n", "words": head + "1\n0 4096 1\n", "end": head + "1\n0 4096",
	} {
		if b, err := unpackBootSet([]byte(text)); err == nil {
			t.Errorf("%s: %q is taken as %+v", name, text, b)
		}
	}
}

// FuzzBootSet takes what it would write, and nothing else.
func FuzzBootSet(f *testing.F) {
	f.Add([]byte(goldenBootSet))
	f.Add([]byte(bootOff))
	f.Add([]byte(strings.Replace(goldenBootSet, "65536", "-4096", 1)))
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := unpackBootSet(text)
		if err != nil {
			return
		}
		if got := packBootSet(b); !bytes.Equal(got, text) {
			t.Errorf("%q becomes %q", text, got)
		}
		if b.bytes() > maxBoot {
			t.Errorf("%d bytes", b.bytes())
		}
	})
}

// TestSweeps sorts what is read ahead, but not over more than a sweep.
func TestSweeps(t *testing.T) {
	const far = 1 << 30
	list := []vdisk.Range{{Off: far, Len: aheadBytes + 4096}, {Off: 0, Len: 4096}, {Off: 2 * far, Len: sweepBytes}, {Off: 8192, Len: 4096}}
	got := sweeps(list)
	if want := []vdisk.Range{{Off: 0, Len: 4096}, {Off: far, Len: aheadBytes}, {Off: far + aheadBytes, Len: 4096}, {Off: 2 * far, Len: aheadBytes}}; !slices.Equal(got[:4], want) {
		t.Errorf("got %v, want %v", got[:4], want)
	}
	if last := got[len(got)-2:]; last[0].Off != 8192 && last[1].Off != 8192 {
		t.Errorf("the last are %v", last)
	}
	total := int64(0)
	for _, r := range got {
		total += r.Len
	}
	if total != aheadBytes+4096+4096+sweepBytes+4096 {
		t.Errorf("%d bytes", total)
	}
}

func TestWatch(t *testing.T) {
	w := watch{chunks: make(map[int64]uint64), more: make(chan struct{}, 1)}
	w.note(5000, 1)
	w.note(4095, 2)
	w.note(63*4096, 8192)
	w.note(1<<40, 4096)
	w.note(5000, 1)
	w.note(0, 0)
	want := []vdisk.Range{{Off: 4096, Len: 4096}, {Off: 0, Len: 4096}, {Off: 63 * 4096, Len: 8192}, {Off: 1 << 40, Len: 4096}}
	if got := w.ranges(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	w.note(1<<30, 2*maxBoot)
	total := int64(0)
	for _, r := range w.ranges() {
		total += r.Len
	}
	if total != maxBoot {
		t.Errorf("%d bytes are noted, at most %d", total, maxBoot)
	}
}
