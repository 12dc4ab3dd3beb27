// Package users is Fossil's table of users and groups: who is called what, who
// belongs to whom. Files keep uids, which do not change; people and 9P have
// unames, which can.
//
// A Table does not change: an edit makes another one, so that whoever holds
// one needs no lock.
//
//	t, problems, err := users.Parse(text)
//	if t.Member(file.GID, "glenda") { ... }
//	t, err = t.Add("ken", "ken")
//	t, err = t.Edit("sys", "+ken")
//
// It is written as lines (section 11 of the specification, fossilcons(8)):
//
//	uid:uname:leader:member,member,...
//
// Blanks, empty lines and what follows a # do not count, and are lost when the
// table is written again. Every user is a group too, with itself in it. A
// leader and members are unames.
package users

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The users that mean something to Fossil itself. All but Write are in every
// table, with a uname that is the uid.
const (
	Adm     = "adm"     // owns what the file system makes
	None    = "none"    // who has no name; nobody's leader
	NoWorld = "noworld" // its members have no rights but those of owners and groups
	Sys     = "sys"     // the group of the system's files
	Write   = "write"   // if there is such a group, nobody else changes anything
)

// mandatory are the users that every table has.
var mandatory = []string{Adm, None, NoWorld, Sys}

// defaultText is the table of a file system that has none.
const defaultText = `adm:adm:adm:sys
none:none::
noworld:noworld::
sys:sys::glenda
glenda:glenda:glenda:
`

// blanks takes them out. Names may have any other bytes.
var blanks = strings.NewReplacer(" ", "", "\t", "", "\r", "", "\n", "")

// A User is a user and the group of the same uid.
type User struct {
	ID      string
	Name    string
	Leader  string   // a uname; empty means that every member leads
	Members []string // unames, without its own; in the order in which they came
}

// String returns the user's line.
func (u *User) String() string {
	return u.ID + ":" + u.Name + ":" + u.Leader + ":" + strings.Join(u.Members, ",")
}

// A Table is a set of users. It does not change.
type Table struct {
	byID   map[string]*User
	byName map[string]*User
}

// The errors that callers tell apart.
var (
	ErrUnknown = errors.New("not found")
	ErrExist   = errors.New("already exists")
)

// Default returns the table of a file system that has none of its own.
func Default() *Table {
	t, problems, err := Parse([]byte(defaultText))
	if err != nil || len(problems) > 0 {
		panic(fmt.Sprintf("users: default table: %v, %v", err, problems))
	}
	return t
}

// Parse reads a table. Lines that make no sense are left out, and so are
// members that are nobody; problems says which, in words. The error is that
// the table as a whole cannot be used: a mandatory user is missing.
func Parse(text []byte) (t *Table, problems []error, err error) {
	t = &Table{byID: map[string]*User{}, byName: map[string]*User{}}
	problem := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	type rest struct {
		u               *User
		leader, members string
	}
	var later []rest // a line may name users of lines below it
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		line = blanks.Replace(line)
		if line == "" {
			continue
		}
		f := strings.Split(line, ":")
		if len(f) != 4 {
			problem("bad line %q", line)
			continue
		}
		u := &User{ID: f[0], Name: f[1]}
		if err := t.add(u); err != nil {
			problem("line %q: %w", line, err)
			continue
		}
		later = append(later, rest{u, f[2], f[3]})
	}
	for _, l := range later {
		if l.leader != "" {
			l.u.Leader = l.leader
			if t.byName[l.leader] == nil {
				problem("group %s: leader %q %w", l.u.Name, l.leader, ErrUnknown)
				l.u.Leader = l.u.Name
			}
		}
		for m := range strings.SplitSeq(l.members, ",") {
			if m == "" {
				continue
			}
			if err := t.addMember(l.u, m); err != nil {
				problem("group %s: %w", l.u.Name, err)
			}
		}
	}
	for _, id := range mandatory {
		switch u := t.byID[id]; {
		case u == nil:
			return nil, problems, fmt.Errorf("user '%s' is mandatory", id)
		case u.Name != id:
			return nil, problems, fmt.Errorf("uid/uname for user '%s' must match", id)
		}
	}
	return t, problems, nil
}

// add puts in a user who has no leader and no members yet.
func (t *Table) add(u *User) error {
	for _, name := range []string{u.ID, u.Name} {
		if err := checkName(name); err != nil {
			return err
		}
	}
	if t.byID[u.ID] != nil {
		return fmt.Errorf("uid '%s' %w", u.ID, ErrExist)
	}
	if t.byName[u.Name] != nil {
		return fmt.Errorf("uname '%s' %w", u.Name, ErrExist)
	}
	t.byID[u.ID], t.byName[u.Name] = u, u
	return nil
}

// checkName tells what is wrong with a uid or uname: it must survive being
// written to a line.
func checkName(name string) error {
	if name == "" {
		return errors.New("empty user name")
	}
	for _, r := range name {
		if r <= ' ' || r == 0x7f || strings.ContainsRune("#:,()", r) {
			return fmt.Errorf("bad user name %q: no blanks and none of # : , ( ) are allowed", name)
		}
	}
	return nil
}

func (t *Table) addMember(g *User, name string) error {
	switch m := t.byName[name]; {
	case m == nil:
		return fmt.Errorf("uname '%s' %w", name, ErrUnknown)
	case m == g:
		return fmt.Errorf("'%s' always in own group", name)
	case slices.Contains(g.Members, name):
		return fmt.Errorf("'%s' already in group '%s'", name, g.Name)
	}
	g.Members = append(g.Members, name)
	return nil
}

// Text returns the table as Parse reads it, in the order of uids.
func (t *Table) Text() []byte {
	var b bytes.Buffer
	for _, u := range t.All() {
		b.WriteString(u.String())
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// All returns the users in the order of their uids. They are the table's own:
// they must not be changed.
func (t *Table) All() []*User {
	list := slices.Collect(maps.Values(t.byID))
	slices.SortFunc(list, func(a, b *User) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// ByName returns the user called name, or nil. It must not be changed.
func (t *Table) ByName(name string) *User { return t.byName[name] }

// ByID returns the user with a uid, or nil. It must not be changed.
func (t *Table) ByID(id string) *User { return t.byID[id] }

// Name returns what a uid is called. One that is not in the table is called
// (uid), which nobody can be.
func (t *Table) Name(id string) string {
	if u := t.byID[id]; u != nil {
		return u.Name
	}
	return "(" + id + ")"
}

// ID returns the uid of a uname; ok is false if there is none.
func (t *Table) ID(name string) (id string, ok bool) {
	if u := t.byName[name]; u != nil {
		return u.ID, true
	}
	return "", false
}

// Member tells whether the user called name is in the group with a uid. It is
// false if either is not in the table.
func (t *Table) Member(id, name string) bool {
	g, u := t.byID[id], t.byName[name]
	return g != nil && u != nil && (g == u || slices.Contains(g.Members, name))
}

// Leads tells whether the user called name may act for the group with a uid:
// as its leader or, where it has none, as any member. None never does.
func (t *Table) Leads(id, name string) bool {
	g := t.byID[id]
	if g == nil || name == None {
		return false
	}
	if g.Leader != "" {
		return g.Leader == name
	}
	return t.Member(id, name)
}

// MayWrite tells whether the user called name may change anything at all:
// everybody may, unless there is a group Write.
func (t *Table) MayWrite(name string) bool {
	return t.byID[Write] == nil || t.Member(Write, name)
}

// clone returns a table that can be changed without this one changing.
func (t *Table) clone() *Table {
	next := &Table{byID: map[string]*User{}, byName: map[string]*User{}}
	for _, u := range t.byID {
		c := *u
		c.Members = slices.Clone(u.Members)
		next.byID[c.ID], next.byName[c.Name] = &c, &c
	}
	return next
}

// Add returns a table that has another user.
func (t *Table) Add(id, name string) (*Table, error) {
	next := t.clone()
	if err := next.add(&User{ID: id, Name: name}); err != nil {
		return nil, err
	}
	return next, nil
}

// Edit returns a table in which one thing about the user called name is
// another. what is as the console's command uname takes it:
//
//	%newname     is called so, everywhere
//	=leader      has this leader; = alone means none
//	+member      has another member
//	-member      has this one no more
func (t *Table) Edit(name, what string) (*Table, error) {
	if t.byName[name] == nil {
		return nil, fmt.Errorf("uname '%s' %w", name, ErrUnknown)
	}
	if what == "" {
		return nil, errors.New("nothing to change")
	}
	next := t.clone()
	u := next.byName[name]
	arg := what[1:]
	var err error
	switch what[0] {
	case '%':
		err = next.rename(u, arg)
	case '=':
		if arg != "" && next.byName[arg] == nil {
			return nil, fmt.Errorf("uname '%s' %w", arg, ErrUnknown)
		}
		u.Leader = arg
	case '+':
		err = next.addMember(u, arg)
	case '-':
		err = next.removeMember(u, arg)
	default:
		return nil, fmt.Errorf("bad change %q: want %%newname, =leader, +member or -member", what)
	}
	if err != nil {
		return nil, err
	}
	return next, nil
}

func (t *Table) rename(u *User, name string) error {
	switch {
	case slices.Contains(mandatory, u.ID):
		return fmt.Errorf("uname '%s' is mandatory", u.Name)
	case t.byName[name] != nil:
		return fmt.Errorf("uname '%s' %w", name, ErrExist)
	}
	if err := checkName(name); err != nil {
		return err
	}
	old := u.Name
	for _, g := range t.byID {
		if g.Leader == old {
			g.Leader = name
		}
		if i := slices.Index(g.Members, old); i >= 0 {
			g.Members[i] = name
		}
	}
	delete(t.byName, old)
	u.Name, t.byName[name] = name, u
	return nil
}

func (t *Table) removeMember(g *User, name string) error {
	i := slices.Index(g.Members, name)
	switch {
	case t.byName[name] == nil:
		return fmt.Errorf("uname '%s' %w", name, ErrUnknown)
	case g.Name == name:
		return fmt.Errorf("'%s' always in own group", name)
	case i < 0:
		return fmt.Errorf("'%s' not in group '%s'", name, g.Name)
	}
	g.Members = slices.Delete(g.Members, i, i+1)
	return nil
}
