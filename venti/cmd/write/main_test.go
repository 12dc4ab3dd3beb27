package main

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"strata/venti"
	"strata/venti/ventitest"
)

func TestWrite(t *testing.T) {
	st := ventitest.NewMemory()
	addr := ventitest.Serve(t, st)
	t.Setenv("venti", addr)
	for _, tc := range []struct {
		name           string
		args           []string
		stdin          string
		status         int
		stdout, stderr string
		typ            venti.Type
		block          string
	}{
		{"data", nil, "hello world\n", 0, "22596363b3de40b06f981fb85d82312e8c0ed511\n", "", 0, "hello world\n"},
		{"root", []string{"-t", "16", "-h", addr}, "abc", 0, "a9993e364706816aba3e25717850c26c9cd0d89d\n", "", 16, "abc"},
		{"by name", []string{"--type", "dir", "--host", addr}, "abc", 0, "a9993e364706816aba3e25717850c26c9cd0d89d\n", "", 8, "abc"},
		{"truncated", []string{"-z"}, "abc\x00\x00", 0, "a9993e364706816aba3e25717850c26c9cd0d89d\n", "", 0, "abc"},
		{"not truncated", nil, "\x00", 0, "5ba93c9db0cff93f52b521d7420e43f6eda2784f\n", "", 0, "\x00"},
		{"empty", nil, "", 0, venti.EmptyScore.String() + "\n", "", 0, ""},
		{"largest", nil, strings.Repeat("Z", 57344), 0, "aa4c3aebf99912b3e802059a0ff53197c542c5ad\n", "", 0, strings.Repeat("Z", 57344)},
		{"too large", nil, strings.Repeat("Z", 57345), 1, "", "venti/write: more than 57344 bytes: lump too large\n", 0, ""},
		{"arguments", []string{"x"}, "", 2, "", "usage: venti/write [-z] [-h host] [-t type] <datablock\n", 0, ""},
		{"bad type", []string{"-t", "x"}, "", 2, "", "venti/write: usage: bad block type \"x\"\n", 0, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := newCommand().Execute(context.Background(), tc.args, strings.NewReader(tc.stdin), &stdout, &stderr)
			if status != tc.status || stdout.String() != tc.stdout || !strings.HasPrefix(stderr.String(), tc.stderr) || tc.stderr == "" && stderr.Len() > 0 {
				t.Errorf("status %d, stdout %q, stderr %q, want %d, %q, %q", status, stdout.String(), stderr.String(), tc.status, tc.stdout, tc.stderr)
			}
			if status != 0 {
				return
			}
			buf := make([]byte, venti.MaxBlockSize)
			n, err := st.ReadBlock(t.Context(), venti.ScoreOf([]byte(tc.block)), tc.typ, buf)
			if err != nil || string(buf[:n]) != tc.block {
				t.Errorf("stored %q, %v", buf[:n], err)
			}
		})
	}
}
