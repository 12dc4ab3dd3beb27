package console

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"strata/internal/ninep"
	"strata/internal/ninep/ninetest"
)

// TestContract holds what a host serves, ctl and snapshots included, to the
// contract of trees and to the conversations that every tree can hold.
func TestContract(t *testing.T) {
	h, s := newMain(t, Config{Now: newClock().Now})
	exec(t, s, "create /active/tmp glenda adm d777")
	exec(t, s, "create /active/tmp/file glenda adm 644")
	exec(t, s, "wstat /active/tmp/file - - - - 20000")
	exec(t, s, "snap")
	exec(t, s, "create /active/tmp/later glenda adm 644")
	exec(t, s, "snap -a")
	for aname, dir := range map[string]string{"main": "active/tmp", "": "tmp"} {
		t.Run("aname "+aname, func(t *testing.T) {
			ninetest.TestTree(t, h, ninetest.TreeConfig{User: "adm", Aname: aname, Write: dir})
		})
	}
}

// TestDialects has the same done in all dialects.
func TestDialects(t *testing.T) {
	newFS := func(t *testing.T) ninep.FS {
		h, s := newMain(t, Config{})
		exec(t, s, "create /active/tmp glenda adm d777")
		return h
	}
	ninetest.TestDialects(t, newFS, ninetest.TreeConfig{User: "glenda", Aname: "main/active/tmp"}, 1, 500)
}

// TestCtl uses the file ctl as another daemon does, in each dialect.
func TestCtl(t *testing.T) {
	h, s := newMain(t, Config{})
	exec(t, s, "create /active/disk glenda adm 666")
	for _, d := range []ninep.Dialect{ninep.Classic, ninep.Unix, ninep.Linux} {
		t.Run(d.String(), func(t *testing.T) {
			for user, ok := range map[string]bool{"adm": true, "sys": true, "glenda": false, "none": false, "stranger": false} {
				ctl, err := ninetest.Dial(t, h, d, user, "main").Walk(t.Context(), "ctl")
				if err != nil {
					t.Fatal(err)
				}
				if err := ctl.Open(t.Context(), ninep.ORDWR); (err == nil) != ok {
					t.Errorf("%s opens ctl: %v", user, err)
				}
			}
			root := ninetest.Dial(t, h, d, "adm", "main")
			names := ""
			list, err := root.Walk(t.Context())
			if err == nil {
				err = list.Open(t.Context(), ninep.OREAD)
			}
			if err != nil {
				t.Fatal(err)
			}
			entries, err := list.ReadDir(t.Context())
			for _, e := range entries {
				names += fmt.Sprintf("%s %o %s ", e.Name, e.Mode&0o777, e.UID)
			}
			if err != nil || d != ninep.Linux && !strings.HasSuffix(names, "ctl 660 adm ") || strings.Count(names, "ctl") != 1 {
				t.Errorf("in the root directory: %s, %v", names, err)
			}
			ctl, err := root.Walk(t.Context(), "ctl")
			if err == nil {
				err = ctl.Open(t.Context(), ninep.ORDWR)
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, tc := range []struct{ line, result, err string }{
				{"", "", ""},
				{"extents /active/disk 0 1\n", "", ""},
				{"stat /active/disk", "\tstat /active/disk disk glenda adm 666 0\n", ""},
				{"echo " + strings.Repeat("long ", 1000), strings.TrimSpace(strings.Repeat("long ", 1000)) + "\n", ""},
				{"stat /active/none", "", "walk /active/none: file does not exist"},
				{"nonsense", "", "nonsense: - eh?"},
				{"echo a\necho b", "", "one command in a write, please"},
				{"echo a\x00", "", "ctl file takes no NUL"},
				{"halt", "", ""},
				{"df", "", "file system main is halted"},
				{"unhalt", "", ""},
			} {
				_, err := ctl.WriteAt(t.Context(), []byte(tc.line), 0)
				if d == ninep.Linux && err != nil { // which has numbers for errors only
					err = errors.New(tc.err)
				}
				if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
					t.Errorf("%.30q: %v, want %q", tc.line, err, tc.err)
				}
				if tc.err != "" {
					continue
				}
				b := make([]byte, 10000)
				n, err := ctl.ReadAt(t.Context(), b, 0)
				if string(b[:n]) != tc.result {
					t.Errorf("%.30q: read %.100q, %v, want %.100q", tc.line, b[:n], err, tc.result)
				}
			}
			// It is no file like others.
			for what, err := range map[string]error{
				"remove": ctl.Remove(t.Context()),
				"create": root.Create(t.Context(), "ctl", 0o666, ninep.OREAD),
			} {
				if err == nil {
					t.Errorf("%s: no error", what)
				}
			}
		})
	}
}
