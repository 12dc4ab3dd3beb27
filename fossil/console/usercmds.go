package console

import (
	"context"
	"errors"
	"fmt"

	"strata/fossil/internal/users"
	"strata/fossil/tree"
)

// userCommands are about the table of users.
func userCommands() []Command {
	return []Command{{
		Name: "users", Args: "[-d | -r file] [-w]", Scope: Open,
		Help: "Print how large the table of users is.\n" +
			"-d make it the default one; -r read it from a file of the file system;\n" +
			"-w write it to " + tree.UsersFile + ".",
		Run: runUsers,
	}, {
		Name: "uname", Args: "[-d] [name [change...]]", Scope: Open,
		Help: "Print a user, or make changes, and write the table of users.\n" +
			"-d print the whole table, after the changes if there are some. A change is\n" +
			"id: add a user with this id, and the directory /active/usr/name; :id: without that;\n" +
			"%new: call it so from now on; =leader: make that the leader of its group, or with = alone nobody;\n" +
			"+member or -member: put that into its group, or out of it.",
		Run: runUname,
	}}
}

func runUsers(ctx context.Context, c *Call) error {
	var reset, write bool
	var file string
	fs := c.Flags()
	fs.BoolVarP(&reset, "default", "d", false, "")
	fs.StringVarP(&file, "read", "r", "", "")
	fs.BoolVarP(&write, "write", "w", false, "")
	if err := c.Parse(fs, 0, 0); err != nil {
		return err
	}
	t := c.Fsys.Tree()
	switch {
	case reset && fs.Changed("read"):
		return c.Usagef("-d and -r")
	case reset:
		t.SetUsers(users.Default())
	case fs.Changed("read"):
		problems, err := t.ReadUsers(ctx, file)
		for _, p := range problems {
			c.Printf("\t%s: %v\n", file, p)
		}
		if err != nil {
			return err
		}
	}
	if write {
		if err := t.WriteUsers(ctx); err != nil {
			return err
		}
	}
	u := t.Users()
	c.Printf("\tnuser %d len %d\n", len(u.All()), len(u.Text()))
	return nil
}

func runUname(ctx context.Context, c *Call) error {
	var dump bool
	fs := c.Flags()
	fs.BoolVarP(&dump, "dump", "d", false, "")
	if err := c.Parse(fs, 0, many); err != nil {
		return err
	}
	if len(c.Args) == 0 && !dump {
		return c.Usage()
	}
	t := c.Fsys.Tree()
	if len(c.Args) == 1 {
		u := t.Users().ByName(c.Args[0])
		if u == nil {
			return fmt.Errorf("uname '%s' %w", c.Args[0], users.ErrUnknown)
		}
		if !dump {
			c.Printf("\t%s\n", u)
		}
	}
	if len(c.Args) > 1 {
		name := c.Args[0]
		for _, change := range c.Args[1:] {
			var err error
			if name, err = editUser(ctx, t, name, change); err != nil {
				return err
			}
		}
	}
	if dump {
		for _, u := range t.Users().All() {
			c.Printf("\t%s\n", u)
		}
	}
	return nil
}

// editUser makes a change to the user called name, and returns what it is
// called then.
func editUser(ctx context.Context, t *tree.Tree, name, change string) (string, error) {
	if change == "" {
		return name, errors.New("nothing to change")
	}
	switch change[0] {
	case ':':
		return name, t.AddUser(ctx, name, change[1:], true)
	case '%', '=', '+', '-':
		err := t.EditUsers(ctx, func(u *users.Table) (*users.Table, error) { return u.Edit(name, change) })
		if err == nil && change[0] == '%' {
			name = change[1:]
		}
		return name, err
	}
	return name, t.AddUser(ctx, name, change, false)
}
