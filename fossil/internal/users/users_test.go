package users

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// parse reads a table that has the mandatory users and these.
func parse(t testing.TB, lines ...string) *Table {
	t.Helper()
	text := defaultText + strings.Join(lines, "\n") + "\n"
	table, problems, err := Parse([]byte(text))
	if err != nil || len(problems) > 0 {
		t.Fatalf("parse %q: %v, %v", text, problems, err)
	}
	return table
}

func TestDefault(t *testing.T) {
	want := "adm:adm:adm:sys\nglenda:glenda:glenda:\nnone:none::\nnoworld:noworld::\nsys:sys::glenda\n"
	if got := string(Default().Text()); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestLines reads a table with every fault that a line can have.
func TestLines(t *testing.T) {
	table, problems, err := Parse([]byte(`
# users of this machine
adm : adm : adm : sys, kenneth    # blanks do not count
none:none::
noworld:noworld::
sys:sys::glenda

ken:kenneth:nobody:glenda,ghost,kenneth,glenda
glenda:glenda:glenda:
ken:other::
x:kenneth::
three:fields:
five:fields:a:b:c
b(d:bad::
:empty::
empty:::`))
	if err != nil {
		t.Fatal(err)
	}
	want := "adm:adm:adm:sys,kenneth\nglenda:glenda:glenda:\nken:kenneth:kenneth:glenda\nnone:none::\nnoworld:noworld::\nsys:sys::glenda\n"
	if got := string(table.Text()); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	// Seven lines, the unknown leader, and three members.
	if len(problems) != 11 {
		t.Errorf("%d problems: %v", len(problems), errors.Join(problems...))
	}
	again, problems, err := Parse(table.Text())
	if err != nil || len(problems) > 0 || string(again.Text()) != want {
		t.Errorf("what was written reads as %q: %v, %v", again.Text(), problems, err)
	}
}

func TestMandatory(t *testing.T) {
	for text, want := range map[string]string{
		"": "user 'adm' is mandatory",
		"adm:adm::\nnone:none::\nnoworld:noworld::\n":            "user 'sys' is mandatory",
		"adm:adm::\nnone:nobody::\nnoworld:noworld::\nsys:sys::": "uid/uname for user 'none' must match",
	} {
		if _, _, err := Parse([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}

func TestMembers(t *testing.T) {
	table := parse(t, "ken:kenneth:glenda:rob", "rob:rob::kenneth")
	for _, tc := range []struct {
		id, name      string
		member, leads bool
	}{
		{"ken", "kenneth", true, false}, // glenda leads
		{"ken", "ken", false, false},    // that is the uid
		{"kenneth", "kenneth", false, false},
		{"ken", "rob", true, false},
		{"ken", "glenda", false, true},
		{"rob", "kenneth", true, true}, // without a leader every member leads
		{"rob", "glenda", false, false},
		{"none", "none", true, false},
		{"adm", "sys", true, false},
		{"adm", "adm", true, true},
		{"nobody", "rob", false, false},
		{"rob", "nobody", false, false},
	} {
		if got := table.Member(tc.id, tc.name); got != tc.member {
			t.Errorf("%s is a member of %s: got %v", tc.name, tc.id, got)
		}
		if got := table.Leads(tc.id, tc.name); got != tc.leads {
			t.Errorf("%s leads %s: got %v", tc.name, tc.id, got)
		}
	}
	if got := table.Name("ken"); got != "kenneth" {
		t.Errorf("ken is called %s", got)
	}
	if got := table.Name("gone"); got != "(gone)" {
		t.Errorf("an unknown uid is called %s", got)
	}
	if id, ok := table.ID("kenneth"); !ok || id != "ken" {
		t.Errorf("kenneth is %q, %v", id, ok)
	}
	if _, ok := table.ID("(gone)"); ok {
		t.Error("somebody is called (gone)")
	}
}

func TestMayWrite(t *testing.T) {
	if !Default().MayWrite("anybody") {
		t.Error("without a group write, not everybody may")
	}
	table := parse(t, "write:write::glenda")
	for name, want := range map[string]bool{"glenda": true, "write": true, "adm": false, "anybody": false} {
		if got := table.MayWrite(name); got != want {
			t.Errorf("%s may write: got %v", name, got)
		}
	}
}

func TestEdit(t *testing.T) {
	table := parse(t, "ken:ken:ken:glenda", "rob:rob:ken:ken")
	before := string(table.Text())
	line := func(t *Table, id string) string {
		if u := t.ByID(id); u != nil {
			return u.String()
		}
		return ""
	}
	for _, tc := range []struct {
		name, what string
		id, want   string // the line of a user afterwards
		err        string
	}{
		{"ken", "%kenneth", "ken", "ken:kenneth:kenneth:glenda", ""},
		{"ken", "%kenneth", "rob", "rob:rob:kenneth:kenneth", ""},
		{"ken", "=rob", "ken", "ken:ken:rob:glenda", ""},
		{"ken", "=", "ken", "ken:ken::glenda", ""},
		{"ken", "+rob", "ken", "ken:ken:ken:glenda,rob", ""},
		{"ken", "-glenda", "ken", "ken:ken:ken:", ""},
		{"ken", "%rob", "", "", "uname 'rob' already exists"},
		{"ken", "%a b", "", "", `bad user name "a b"`},
		{"ken", "%", "", "", "empty user name"},
		{"adm", "%root", "", "", "uname 'adm' is mandatory"},
		{"ken", "=ghost", "", "", "uname 'ghost' not found"},
		{"ken", "+ghost", "", "", "uname 'ghost' not found"},
		{"ken", "+glenda", "", "", "'glenda' already in group 'ken'"},
		{"ken", "+ken", "", "", "'ken' always in own group"},
		{"ken", "-ken", "", "", "'ken' always in own group"},
		{"ken", "-rob", "", "", "'rob' not in group 'ken'"},
		{"ken", "-ghost", "", "", "uname 'ghost' not found"},
		{"ken", "rob", "", "", `bad change "rob"`},
		{"ken", "", "", "", "nothing to change"},
		{"ghost", "=ken", "", "", "uname 'ghost' not found"},
	} {
		next, err := table.Edit(tc.name, tc.what)
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) || next != nil {
				t.Errorf("%s %s: got %v, want %s", tc.name, tc.what, err, tc.err)
			}
		} else if err != nil || line(next, tc.id) != tc.want {
			t.Errorf("%s %s: %s is %q, %v, want %q", tc.name, tc.what, tc.id, line(next, tc.id), err, tc.want)
		}
		if got := string(table.Text()); got != before {
			t.Fatalf("%s %s: the table that was is now %q", tc.name, tc.what, got)
		}
	}
	next, err := table.Add("bwk", "brian")
	if err != nil || line(next, "bwk") != "bwk:brian::" || line(table, "bwk") != "" {
		t.Errorf("add: %q, %v", line(next, "bwk"), err)
	}
	for _, pair := range [][2]string{{"ken", "new"}, {"new", "ken"}, {"", "new"}, {"new", "n:w"}} {
		if _, err := table.Add(pair[0], pair[1]); err == nil {
			t.Errorf("user %q is added", pair)
		}
	}
	if _, err := table.Add("ken", "new"); !errors.Is(err, ErrExist) {
		t.Errorf("a uid twice: %v", err)
	}
}

// FuzzParse holds any text to what a table promises: what is read is written
// and read again, and every name in it is somebody's.
func FuzzParse(f *testing.F) {
	f.Add(defaultText)
	f.Add(defaultText + "ken:kenneth:ken:glenda,\xff # x\nwrite:write::a,b")
	f.Fuzz(func(t *testing.T, text string) {
		table, _, err := Parse([]byte(text))
		if err != nil {
			return
		}
		for _, u := range table.All() {
			if table.ByID(u.ID) != u || table.ByName(u.Name) != u {
				t.Errorf("user %v is not found", u)
			}
			if u.Leader != "" && table.ByName(u.Leader) == nil {
				t.Errorf("user %v has an unknown leader", u)
			}
			for i, m := range u.Members {
				if table.ByName(m) == nil || m == u.Name || slices.Contains(u.Members[:i], m) {
					t.Errorf("user %v has a member %q", u, m)
				}
			}
		}
		again, problems, err := Parse(table.Text())
		if err != nil || len(problems) > 0 || string(again.Text()) != string(table.Text()) {
			t.Errorf("written and read again: %v, %v", problems, err)
		}
	})
}
