package live

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"strata/internal/disk"
	"strata/internal/ninep"
	"strata/vdisk"
	"strata/venti"
)

// A command is what a line of a ctl file may begin with.
type command struct {
	name  string
	args  string // as a usage line has them
	help  string
	flags string // the letters that it takes
	min   int    // arguments
	max   int
	reads bool // whoever may only read may give it
	one   bool // its first argument is an image, which that image's ctl file adds

	run func(ctx context.Context, c *Catalogue, a *call) error
}

// A call is a command with its arguments.
type call struct {
	flags string
	args  []string
	out   strings.Builder
}

func (a *call) flag(letter string) bool { return strings.Contains(a.flags, letter) }

// arg returns an argument, or "".
func (a *call) arg(i int) string {
	if i < len(a.args) {
		return a.args[i]
	}
	return ""
}

const many = 1 << 20

// A Usage says how a command is used.
type Usage struct {
	Name  string
	Args  string // as a usage line has them
	Help  string
	Flags string // letters
}

// Commands returns the commands of ctl files, by name.
func Commands() []Usage {
	var list []Usage
	for _, c := range commands() {
		list = append(list, Usage{c.name, c.args, c.help, c.flags})
	}
	return list
}

// commands returns the table of commands, by name.
func commands() []command {
	return []command{
		{name: "boot", args: "[-b] NAME [on|off]", flags: "b", min: 1, max: 2, run: runBoot, one: true,
			help: "print what of a disk its last start has read, which the next reads ahead; -b its blocks"},
		{name: "clone", args: "NAME[@SNAP] NEW", min: 2, max: 2, run: runClone, one: true,
			help: "make an image of another, or of a snapshot; nothing is copied"},
		{name: "create", args: "NAME SIZE", min: 2, max: 2, run: runCreate,
			help: "make an empty image; SIZE is in bytes, or with k, m, g or t"},
		{name: "diff", args: "[-rF] NAME[@SNAP]|SCORE NAME[@SNAP]|SCORE", flags: "rF", min: 2, max: 2, run: runDiff,
			help: "print the ranges in which two disks differ, offset and length in bytes, and the files; of an image a snapshot is taken"},
		{name: "help", max: 0, run: runHelp, reads: true, help: "print this"},
		{name: "import", args: "NAME SCORE", min: 2, max: 2, run: runImport,
			help: "make an image of a stored disk, or of a history that roots has printed; nothing is copied"},
		{name: "info", args: "NAME", min: 1, max: 1, run: runInfo, reads: true, one: true,
			help: "print how an image is cut, and its state"},
		{name: "keep", args: "[-y] NAME RULE...", flags: "y", min: 3, max: many, run: runKeep, one: true,
			help: "say which snapshots go by rules such as 7 daily 4 weekly 12 monthly, and with -y let them go"},
		{name: "log", args: "NAME|SCORE", min: 1, max: 1, run: runLog, reads: true, one: true,
			help: "print the snapshots of an image, or of a history that roots has printed"},
		{name: "ls", args: "[-l] [NAME]", flags: "l", max: 1, run: runList, reads: true,
			help: "print the names of images, with -l size and state"},
		{name: "mv", args: "NAME NEW", min: 2, max: 2, run: runRename, one: true,
			help: "give an image another name"},
		{name: "protect", args: "NAME", min: 1, max: 1, run: protect(true), one: true,
			help: "keep an image from being removed, rolled back and resized"},
		{name: "resize", args: "[-f] NAME SIZE", flags: "f", min: 2, max: 2, run: runResize, one: true,
			help: "change the size of an image, which whoever opens it anew sees; -f cuts off data"},
		{name: "rm", args: "-f NAME", flags: "f", min: 1, max: 1, run: runRemove, one: true,
			help: "remove an image and its history; what is archived stays so"},
		{name: "rollback", args: "[-n] NAME SNAP", flags: "n", min: 2, max: 2, run: runRollback, one: true,
			help: "make an image what it was; what it is becomes a snapshot, but with -n is lost"},
		{name: "roots", args: "[NAME]", max: 1, run: runRoots,
			help: "print for each image a score with its snapshots linked by prev, which venti/copy copies and import takes, and its name"},
		{name: "settle", args: "[-a] NAME", flags: "a", min: 1, max: 1, run: runSettle, one: true,
			help: "cut an image anew if its table has changed, and trim it; -a also what was not unmounted"},
		{name: "snap", args: "NAME [TAG]", min: 1, max: 2, run: runSnap, one: true,
			help: "take a snapshot, and archive it"},
		{name: "unprotect", args: "NAME", min: 1, max: 1, run: protect(false), one: true,
			help: "undo protect"},
		{name: "verify", args: "NAME[@SNAP]", min: 1, max: 1, run: runVerify,
			help: "read every block of a snapshot, or of a new one"},
	}
}

// Run runs a line of a ctl file, and returns what it has to say. Of the
// commands of an image the first argument is left out if image is not empty.
// Who may only read may give few.
func (c *Catalogue) Run(ctx context.Context, line, image string, mayWrite bool) (string, error) {
	words := strings.Fields(line)
	if len(words) == 0 {
		return "", nil
	}
	table := commands()
	i := slices.IndexFunc(table, func(cmd command) bool { return cmd.name == words[0] && (image == "" || cmd.one) })
	if i < 0 {
		return "", invalid("%s: no such command; help lists them", words[0])
	}
	cmd := &table[i]
	if !cmd.reads && !mayWrite {
		return "", &ninep.Error{Text: fmt.Sprintf("%s: permission denied: who it is that asks is not known", cmd.name), Errno: syscall.EACCES}
	}
	a := new(call)
	words = words[1:]
	for len(words) > 0 && len(words[0]) > 1 && words[0][0] == '-' {
		a.flags += words[0][1:]
		words = words[1:]
	}
	if image != "" {
		a.args = append(a.args, image)
	}
	a.args = append(a.args, words...)
	unknown := strings.Trim(a.flags, cmd.flags) != "" || cmd.flags == "" && a.flags != ""
	if unknown || len(a.args) < cmd.min || len(a.args) > cmd.max {
		return "", invalid("usage: %s %s", cmd.name, cmd.args)
	}
	if err := cmd.run(ctx, c, a); err != nil {
		return a.out.String(), err
	}
	return a.out.String(), nil
}

func invalid(format string, args ...any) error {
	return &ninep.Error{Text: fmt.Sprintf(format, args...), Errno: syscall.EINVAL}
}

func runHelp(_ context.Context, _ *Catalogue, a *call) error {
	t := tabwriter.NewWriter(&a.out, 0, 8, 2, ' ', 0)
	for _, cmd := range commands() {
		fmt.Fprintf(t, "%s %s\t%s\n", cmd.name, cmd.args, cmd.help)
	}
	return t.Flush()
}

func parseSize(text string) (int64, error) {
	n, err := disk.ParseSize(text)
	if err != nil {
		return 0, invalid("bad size %q", text)
	}
	return n, nil
}

func runCreate(ctx context.Context, c *Catalogue, a *call) error {
	size, err := parseSize(a.args[1])
	if err != nil {
		return err
	}
	return c.Create(ctx, a.args[0], size)
}

func runImport(ctx context.Context, c *Catalogue, a *call) error {
	_, score, err := venti.ParseTypedScore(a.args[1])
	if err != nil {
		return invalid("%v", err)
	}
	return c.Graft(ctx, a.args[0], score)
}

func runClone(ctx context.Context, c *Catalogue, a *call) error {
	return c.Clone(ctx, a.args[0], a.args[1])
}
func runRename(ctx context.Context, c *Catalogue, a *call) error {
	return c.Rename(ctx, a.args[0], a.args[1])
}

func runRemove(ctx context.Context, c *Catalogue, a *call) error {
	if !a.flag("f") {
		return invalid("rm removes an image and its history: say rm -f %s if that is meant", a.args[0])
	}
	return c.Remove(ctx, a.args[0])
}

func runResize(ctx context.Context, c *Catalogue, a *call) error {
	size, err := parseSize(a.args[1])
	if err != nil {
		return err
	}
	return c.Resize(ctx, a.args[0], size, a.flag("f"))
}

func protect(on bool) func(context.Context, *Catalogue, *call) error {
	return func(ctx context.Context, c *Catalogue, a *call) error { return c.Protect(ctx, a.args[0], on) }
}

func runSettle(ctx context.Context, c *Catalogue, a *call) error {
	return c.Settle(ctx, a.args[0], a.flag("a"))
}

func runRollback(ctx context.Context, c *Catalogue, a *call) error {
	return c.Rollback(ctx, a.args[0], a.args[1], a.flag("n"))
}

func runSnap(ctx context.Context, c *Catalogue, a *call) error {
	s, err := c.Snapshot(ctx, a.args[0], a.arg(1))
	if err == nil {
		fmt.Fprintf(&a.out, "%s@%s vdisk:%v\n", a.args[0], s.Name, s.Score)
	}
	return err
}

func runLog(ctx context.Context, c *Catalogue, a *call) error {
	var list []Snapshot
	_, score, err := venti.ParseTypedScore(a.args[0])
	if err == nil {
		list, err = c.Unchain(ctx, score)
	} else {
		list, err = c.Log(ctx, a.args[0])
	}
	for _, s := range list {
		fmt.Fprintf(&a.out, "%s %s %s vdisk:%v %s\n", s.Name, s.Time.UTC().Format(time.RFC3339), s.Kind, s.Score, s.Tag)
	}
	return err
}

func runList(ctx context.Context, c *Catalogue, a *call) error {
	names, err := c.List(ctx)
	if err != nil {
		return err
	}
	below := a.arg(0)
	t := tabwriter.NewWriter(&a.out, 0, 8, 2, ' ', 0)
	for _, name := range names {
		if below != "" && name != below && !strings.HasPrefix(name, below+"/") {
			continue
		}
		if !a.flag("l") {
			fmt.Fprintln(t, name)
			continue
		}
		l, err := c.Layout(ctx, name)
		if errors.Is(err, ninep.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return err
		}
		s, err := c.State(ctx, name)
		if err != nil {
			return err
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\n", name, l.Size, l.Table, s)
	}
	return t.Flush()
}

// String says the state in words.
func (s State) String() string {
	var words []string
	if s.Protected {
		words = append(words, "protected")
	}
	switch {
	case s.Table:
		words = append(words, "to be cut anew")
	case s.Changed:
		words = append(words, "not settled")
	}
	if len(s.Writers) > 0 {
		words = append(words, "written to by "+strings.Join(s.Writers, ", "))
	}
	if len(words) == 0 {
		return "-"
	}
	return strings.Join(words, "; ")
}

func runInfo(ctx context.Context, c *Catalogue, a *call) error {
	text, err := c.info(ctx, a.args[0])
	a.out.WriteString(text)
	return err
}

// info says what there is to know of an image.
func (c *Catalogue) info(ctx context.Context, name string) (string, error) {
	l, err := c.Layout(ctx, name)
	if err != nil {
		return "", err
	}
	s, err := c.State(ctx, name)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "name %s\nstate %v\n", name, s)
	err = l.WriteInfo(&b)
	return b.String(), err
}

func runDiff(ctx context.Context, c *Catalogue, a *call) error {
	var list [2]*vdisk.Image
	for i := range list {
		_, score, err := venti.ParseTypedScore(a.args[i])
		if err != nil {
			s, err := c.Resolve(ctx, a.args[i])
			if err != nil {
				return err
			}
			score = s.Score
		}
		if list[i], err = vdisk.Open(ctx, c.store, score); err != nil {
			return err
		}
	}
	both := a.flag("r") == a.flag("F")
	if both || a.flag("r") {
		for r, err := range vdisk.Diff(ctx, list[0], list[1]) {
			if err != nil {
				return err
			}
			fmt.Fprintf(&a.out, "%d %d\n", r.Off, r.Len)
		}
	}
	if both || a.flag("F") {
		for f, err := range vdisk.DiffFiles(ctx, list[0], list[1]) {
			if err != nil {
				return err
			}
			fmt.Fprintln(&a.out, f)
		}
	}
	return nil
}

func runVerify(ctx context.Context, c *Catalogue, a *call) error {
	s, err := c.Resolve(ctx, a.args[0])
	if err != nil {
		return err
	}
	rep, err := vdisk.Verify(ctx, c.store, s.Score, nil)
	if err != nil {
		return err
	}
	for _, f := range rep.Failures {
		fmt.Fprintf(&a.out, "bad %v\n", f)
	}
	if rep.Failed > 0 {
		return &ninep.Error{Text: fmt.Sprintf("verify vdisk:%v: %d blocks are missing or damaged, the first: %v", s.Score, rep.Failed, rep.Failures[0]), Errno: syscall.EIO}
	}
	fmt.Fprintf(&a.out, "good vdisk:%v %d blocks %d bytes\n", s.Score, rep.Blocks, rep.Bytes)
	return nil
}

func runRoots(ctx context.Context, c *Catalogue, a *call) error {
	names := []string{a.arg(0)}
	if names[0] == "" {
		var err error
		if names, err = c.List(ctx); err != nil {
			return err
		}
	}
	for _, name := range names {
		head, err := c.Chain(ctx, name)
		if err != nil {
			return err
		}
		if !head.IsZero() {
			fmt.Fprintf(&a.out, "vdisk:%v %s\n", head, name)
		}
	}
	return nil
}

func runKeep(ctx context.Context, c *Catalogue, a *call) error {
	rules, err := ParseRules(a.args[1:])
	if err != nil {
		return err
	}
	gone, err := c.Keep(ctx, a.args[0], rules, a.flag("y"))
	if err != nil {
		return err
	}
	total := int64(0)
	for _, g := range gone {
		fmt.Fprintf(&a.out, "%s@%s %s %d\n", a.args[0], g.Name, g.Time.UTC().Format(time.RFC3339), g.Frees)
		total += g.Frees
	}
	did := "would let go"
	if a.flag("y") {
		did = "let go"
	}
	fmt.Fprintf(&a.out, "%s of %d snapshots, with at most %d bytes that no other of %s has\n", did, len(gone), total, a.args[0])
	return nil
}
