package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"regexp"
	"strings"
	"testing"

	"strata/venti"
	"strata/venti/ventitest"
)

// TestTemplate compares with what plan9port's randtest -b 1k -s 3 writes.
func TestTemplate(t *testing.T) {
	b := template(3, 50, 1024)
	if got, want := hex.EncodeToString(b[4:20]), "5f422c127114723a312b534b6d1a3c4d"; got != want {
		t.Errorf("the template has %s, want %s", got, want)
	}
	for i, want := range []string{
		"2815e4429a8ecf8f4c448b6dab34d9d5d6025b08", "f1650a33932213510bc73c9d337617d664dc64a4",
		"c9baccbbb10403011c9da8d739d083bd9612886a", "faa43c06a38098ee7181a6d4fde2b0cf2f4d7807",
	} {
		binary.LittleEndian.PutUint32(b, uint32(i))
		if got := venti.ScoreOf(b).String(); got != want {
			t.Errorf("block %d is %s, want %s", i, got, want)
		}
	}
	for _, seed := range []int32{0, -1, 1<<31 - 1, -1 << 31} {
		if b := template(seed, 1, 1000); bytes.Equal(b, make([]byte, 1000)) || bytes.ContainsFunc(b, func(r rune) bool { return r > 1 }) {
			t.Errorf("seed %d, 1 percent: % x", seed, b[:40])
		}
	}
	if b := template(1, 0, 100); !bytes.Equal(b, make([]byte, 100)) {
		t.Errorf("0 percent: % x", b)
	}
}

func TestRandtest(t *testing.T) {
	st := ventitest.NewMemory()
	bad := ventitest.Serve(t, ventitest.NewFaulty(st, ventitest.FailNth(30)))
	t.Setenv("venti", ventitest.Serve(t, st))
	const speed = ` / \d+\.\d{3} seconds = \d+\.\d{6} MB/s\n`
	for _, tc := range []struct {
		name           string
		args           string
		status         int
		stdout, stderr string // patterns
		blocks         int    // in the store afterwards
	}{
		{"nothing there", "-r -n 64k -b 1k", 1, `^$`, `^venti/randtest: block \d+, [0-9a-f]{40}: no block with score`, 0},
		{"write", "-w -n 64k -b 1k -m 4", 0, `^write: 65536 bytes` + speed + `$`, `^$`, 64},
		{"read", "-r -n 64k -b 1k -P -m 7", 0, `^read: 65536 bytes` + speed + `$`, `^$`, 64},
		{"again", "-n 65k -M 64 -b 1k -P", 0, `^write: 65536 bytes` + speed + `read: 65536 bytes` + speed + `$`, `^$`, 64},
		{"other seed", "-M 10 -b 57344 -s 5", 0, `^write: 573440 bytes` + speed + `read`, `^$`, 74},
		{"failure", "-h " + bad + " -b 1k -M 20", 1, `^write: 20480`, `block 10, [0-9a-f]{40}: injected fault`, 74},
		{"large", "-b 57345", 2, `^$`, `bad block size`, 74},
		{"small", "-b 3", 2, `^$`, `bad block size`, 74},
		{"total", "-n x", 2, `^$`, `bad total`, 74},
		{"percentage", "-p 101", 2, `^$`, `bad percentage`, 74},
		{"requests", "-m 0", 2, `^$`, `bad number of requests`, 74},
		{"arguments", "x", 2, `^$`, `^usage: `, 74},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := newCommand().Execute(t.Context(), strings.Fields(tc.args), nil, &stdout, &stderr)
			if status != tc.status || !regexp.MustCompile(tc.stdout).Match(stdout.Bytes()) || !regexp.MustCompile(tc.stderr).Match(stderr.Bytes()) {
				t.Errorf("status %d, stdout %q, stderr %q", status, &stdout, &stderr)
			}
			if n := st.Len(); n != tc.blocks {
				t.Errorf("the store has %d blocks, want %d", n, tc.blocks)
			}
		})
	}
}
