// Package console is what a Fossil server does besides serving files: it has
// file systems by name, opens, halts and closes them, and runs the commands of
// fossilcons(8) on them (section 12 of the specification).
//
//	h := console.New(console.Config{Log: log})
//	s := h.NewSession()
//	err := s.Exec(ctx, os.Stdout, "fsys main config /dev/sdb")
//	err = s.Exec(ctx, os.Stdout, "fsys main open -c 8192")
//	err = s.Exec(ctx, os.Stdout, "df")
//	err = h.Close(ctx)
//
// A line is one command, in words with the quotes of rc(1): a blank within
// single quotes does not end a word, and two quotes there are one. An empty
// line, and one that begins with #, are nothing. A line may be as long as one
// likes, and so may what a command prints. What a command is for a file system
// can be said as "fsys NAME command", "fsys all command", or alone, when it is
// for the session's current one: what "fsys NAME" has made it, or else main, or
// the only one that there is.
//
// # Commands
//
// A command is a row of the table in command.go, and each file that has
// commands has a function that returns its rows. To add some, write such a
// function in a file of its own,
//
//	func fileCommands() []Command {
//		return []Command{{
//			Name: "remove", Args: "path...", Scope: Open,
//			Help: "Remove files, whoever may do that otherwise.",
//			Run:  runRemove,
//		}}
//	}
//
//	func runRemove(ctx context.Context, c *Call) error {
//		if err := c.Parse(c.Flags(), 1, many); err != nil {
//			return err
//		}
//		for _, path := range c.Args {
//			f, err := c.Fsys.FS().Walk(ctx, path)
//			...
//		}
//	}
//
// and name it in commands. Scope says what a command needs: a file system that
// is open (Open, or Any if it may also be halted; several such commands may run
// at once, and none while one of the next two does), one that may be halted, and
// for itself alone (Alone), one
// that need not be open (Named), or none (Global). Flags are those of the
// original, single letters that may stand together and before their value
// without a blank, and each has a long name. What a command has to say goes to
// c.Out, in lines that begin with a tab where the original's do; an error is
// returned, in the words of the original where it has some. A test is a
// conversation in testdata, see console_test.go.
//
// What begins when a file system opens, and ends when it is halted or closed,
// has its place in Fsys.open and Fsys.stop.
//
// # The file ctl
//
// The tree that clients see has a file ctl in its root directory, beside active,
// archive and snapshot: a write of one line runs it, and what it has to say is
// read back from the same fid, at offset 0. Adm may use it, and members of its
// group, whatever permissions else count; it is there also while the file system
// is halted. A command that fails is an error of the write, with the text that
// the console prints and for Linux's clients the number that fits. What programs
// read there, words with rc(1)'s quotes in lines that begin with a tab:
//
//	stat, graft    stat PATH NAME UID GID MODE LENGTH
//	extents        OFFSET LENGTH, of each range that has data, in order
//	snap           the path of the snapshot
//	vac, last      vac:SCORE, without a tab
//	epoch          low NUMBER hi NUMBER
//	who            NUMBER ADDRESS DIALECT FIDS REQUESTS USER...
//	listen, srv    listen [-FLAGS] ADDRESS, srv [-FLAGS] ADDRESS
//	fsys           the name of each file system
//
// punch, sync, create and remove have nothing to say that matters. Vac of what
// is not archived yet fails with EAGAIN.
//
// # Locks
//
// Fsys.room is held while a command runs on a file system; Host.mu and Fsys.mu
// guard fields, and nothing is waited for while they are held. The order is
// Fsys.room, Host.mu, Fsys.mu.
package console
