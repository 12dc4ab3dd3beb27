package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"strata/venti"
	"strata/venti/hashtree"
	"strata/venti/ventitest"
)

// archive stores a root over a directory with one file of two leaves, the
// second of which is lost, and returns the scores of the root and of the lost
// leaf.
func archive(t *testing.T, st *ventitest.Memory) (top, lost venti.Score) {
	t.Helper()
	data := append(bytes.Repeat([]byte("a"), 256), "lost"...)
	e, _, err := hashtree.Write(t.Context(), st, bytes.NewReader(data), int64(len(data)), hashtree.Config{DSize: 256})
	if err != nil {
		t.Fatal(err)
	}
	packed, err := e.Pack(nil)
	if err != nil {
		t.Fatal(err)
	}
	r := venti.Root{Name: "n", Type: "test", BlockSize: 256}
	if r.Score, err = st.WriteBlock(t.Context(), venti.DirType, packed); err != nil {
		t.Fatal(err)
	}
	if packed, err = r.Pack(nil); err != nil {
		t.Fatal(err)
	}
	if top, err = st.WriteBlock(t.Context(), venti.RootType, packed); err != nil {
		t.Fatal(err)
	}
	lost = venti.ScoreOf([]byte("lost"))
	st.Remove(lost, venti.DataType)
	return top, lost
}

func TestCopy(t *testing.T) {
	src := ventitest.NewMemory()
	top, lost := archive(t, src)
	addr := ventitest.Serve(t, src)
	const absent = "0123456789012345678901234567890123456789"
	reading := fmt.Sprintf("read block %v of type data: no block with score %v/0 exists\n", lost, lost)
	leaf := venti.ScoreOf(bytes.Repeat([]byte("a"), 256)).String()
	for _, tc := range []struct {
		name   string
		args   []string // before the addresses
		score  string
		status int
		blocks int    // at the destination afterwards
		stdout string // a format for the new score, if it has a %v
		stderr []string
	}{
		{"damage", nil, "test:" + top.String(), 1, -1, "", []string{"venti/copy: copy " + top.String() + ": " + reading}},
		{"ignore", []string{"-i"}, top.String(), 0, 4, "", []string{"venti/copy: " + reading}},
		{"ignore, long name", []string{"--ignore-errors", "--remember", "--parallel=1"}, top.String(), 0, 4, "", []string{"venti/copy: " + reading}},
		{"rewrite", []string{"-r"}, "test:" + top.String(), 0, 4, "test:%v (1 pointers rewritten)\n", []string{"venti/copy: " + reading}},
		{"rewrite, no prefix", []string{"-mr"}, top.String(), 0, 4, "%v (1 pointers rewritten)\n", []string{"venti/copy: " + reading}},
		{"verbose", []string{"-iv"}, top.String(), 0, 4, "0 skipped, 4 written\n", []string{"-> 0 16 " + top.String() + "\n", " -> 1 8 ", "  -> 2 1 ", "<- " + top.String() + "\n"}},
		{"chatty", []string{"-iV"}, top.String(), 0, 4, "0 skipped, 4 written\n", []string{"   -> 3 0 " + leaf + "\n", "   <- " + leaf + "\n"}},
		{"type", []string{"-t", "data"}, leaf, 0, 1, "", nil},
		{"type by number", []string{"-t", "0"}, leaf, 0, 1, "", nil},
		{"guess", nil, leaf, 0, 1, "", nil},
		{"wrong type", []string{"-t", "8"}, leaf, 1, 0, "", []string{"no block with score " + leaf + "/8 exists\n"}},
		{"absent", nil, absent, 1, 0, "", []string{"venti/copy: no such block: " + absent + " of any type\n"}},
		{"absent, ignored", []string{"-it16"}, absent, 1, 0, "", []string{"no block with score " + absent + "/16 exists\n"}},
		{"bad type", []string{"-t", "17"}, leaf, 2, 0, "", []string{"venti/copy: usage: bad block type", "\nusage: venti/copy [-fimrVv] [-t type] srchost dsthost score\n"}},
		{"bad score", nil, "x", 2, 0, "", []string{`venti/copy: usage: bad score "x"`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dst := ventitest.NewMemory()
			var stdout, stderr bytes.Buffer
			status := newCommand().Execute(t.Context(), append(tc.args, addr, ventitest.Serve(t, dst), tc.score), nil, &stdout, &stderr)
			if status != tc.status {
				t.Errorf("status %d, want %d", status, tc.status)
			}
			if tc.blocks >= 0 && dst.Len() != tc.blocks {
				t.Errorf("%d blocks at the destination, want %d", dst.Len(), tc.blocks)
			}
			want := tc.stdout
			if strings.Contains(want, "%v") {
				_, s, err := venti.ParseTypedScore(strings.Fields(stdout.String())[0])
				if err != nil || s == top {
					t.Errorf("score %v, %v", s, err)
				}
				want = fmt.Sprintf(want, s)
				// The copy is whole.
				err = hashtree.Walk(t.Context(), dst, s, venti.RootType, hashtree.WalkConfig{}, func(b *hashtree.Block) error { return b.Err })
				if err != nil {
					t.Error(err)
				}
			}
			if stdout.String() != want {
				t.Errorf("stdout %q, want %q", stdout.String(), want)
			}
			for _, want := range tc.stderr {
				if !strings.Contains(stderr.String(), want) {
					t.Errorf("stderr %q, want %q", stderr.String(), want)
				}
			}
			if tc.stderr == nil && stderr.Len() > 0 {
				t.Errorf("stderr %q", stderr.String())
			}
		})
	}
}

func TestFast(t *testing.T) {
	st := ventitest.NewMemory()
	top, _ := archive(t, st)
	if _, err := st.WriteBlock(t.Context(), venti.DataType, []byte("lost")); err != nil {
		t.Fatal(err)
	}
	src, dst := ventitest.Serve(t, st), ventitest.Serve(t, ventitest.NewMemory())
	for _, want := range []string{"0 skipped, 5 written\n", "1 skipped, 0 written\n"} {
		var stdout, stderr bytes.Buffer
		if status := newCommand().Execute(t.Context(), []string{"-fv", src, dst, top.String()}, nil, &stdout, &stderr); status != 0 || stdout.String() != want {
			t.Errorf("status %d, stdout %q, want %q; stderr %q", status, stdout.String(), want, stderr.String())
		}
	}
}

func TestServers(t *testing.T) {
	up, down := ventitest.Serve(t, ventitest.NewMemory()), t.TempDir()+"/none"
	for _, tc := range []struct {
		args   []string
		status int
		stderr string
	}{
		{[]string{down, up, venti.EmptyScore.String()}, 1, "venti/copy: source: dial unix "},
		{[]string{up, down, venti.EmptyScore.String()}, 1, "venti/copy: destination: dial unix "},
		{[]string{up, up}, 2, "usage: "},
		{[]string{"-q"}, 2, "venti/copy: unknown shorthand flag"},
	} {
		var stdout, stderr bytes.Buffer
		status := newCommand().Execute(t.Context(), tc.args, nil, &stdout, &stderr)
		if status != tc.status || !strings.HasPrefix(stderr.String(), tc.stderr) {
			t.Errorf("%q: status %d, stderr %q, want %d, %q", tc.args, status, stderr.String(), tc.status, tc.stderr)
		}
	}
}
