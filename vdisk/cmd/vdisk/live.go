package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/internal/netaddr"
	"strata/internal/ninep"
	"strata/vdisk/live"
)

const liveDoc = `The image lives in the vdisk that --server names, or else $vdisk, or else
tcp!127.0.0.1!` + service + `; strata up serves one, also on the socket vdisk.sock in its folder.
Whoever comes by TCP without a certificate may only look, so that for most of
these commands it is the socket that is wanted: export vdisk=unix!DIR/vdisk.sock.`

// longFlags are the long names of the letters that commands of live images
// take, and what they do.
var longFlags = map[string][2]string{
	"a": {"all", "also trim what was not unmounted, and empty swap: nobody may be using it"},
	"F": {"files", "only the files: added, removed or changed, of partitions whose file system can be read"},
	"b": {"blocks", "their scores and types, as venti/readlist takes them, by the last snapshot"},
	"f": {"force", "whatever is lost"},
	"l": {"long", "with size, partition table and state"},
	"r": {"ranges", "only the ranges"},
	"n": {"no-snapshot", "do not keep what it is now"},
	"y": {"yes", "do it"},
}

// hidden are commands that others here do, in a way of their own.
var hidden = map[string]bool{"help": true, "import": true, "info": true, "verify": true}

// liveCommands returns the commands of live images: each is a line for the ctl
// file of a vdisk.
func liveCommands() []command.SubCommand {
	var list []command.SubCommand
	for _, u := range live.Commands() {
		if hidden[u.Name] {
			continue
		}
		list = append(list, command.SubCommand{Name: u.Name, Short: u.Help, New: func() *command.Command { return liveCommand(u) }})
	}
	return list
}

func liveCommand(u live.Usage) *command.Command {
	var server string
	set := make(map[string]*bool)
	return &command.Command{
		Name: "vdisk " + u.Name, Usage: "[-s address] " + u.Args,
		Doc: strings.ToUpper(u.Help[:1]) + u.Help[1:] + ".\n\n" + liveDoc,
		Flags: func(fs *pflag.FlagSet) {
			serverFlag(fs, &server)
			for _, letter := range strings.Split(u.Flags, "") { // of "" none
				f := longFlags[letter]
				set[letter] = fs.BoolP(f[0], letter, false, f[1])
			}
		},
		Run: func(ctx context.Context, io command.IO) error {
			words := []string{u.Name}
			for letter, on := range set {
				if *on {
					words = append(words, "-"+letter)
				}
			}
			if u.Name == "rm" && len(io.Args) == 1 && !*set["f"] {
				if err := sure(io, fmt.Sprintf("remove %s and its history?", io.Args[0])); err != nil {
					return err
				}
				words = append(words, "-f")
			}
			for _, a := range io.Args {
				if strings.ContainsAny(a, " \t\r\n\x00") || a == "" {
					return command.Usagef("bad argument %q", a)
				}
				words = append(words, a)
			}
			return ctl(ctx, server, io.Stdout, strings.Join(words, " "))
		},
	}
}

// serverFlag adds the flag that says where images live.
func serverFlag(fs *pflag.FlagSet, server *string) {
	fs.StringVarP(server, "server", "s", "", "`address` of the vdisk in which images live (default $vdisk)")
}

// sure asks a question, and returns an error unless the answer is yes.
func sure(io command.IO, question string) error {
	fmt.Fprintf(io.Stderr, "%s [y/N] ", question)
	answer, _ := bufio.NewReader(io.Stdin).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errors.New("nothing was done")
}

// dial connects to the vdisk in which images live, as who runs the program.
func dial(ctx context.Context, server string, dialect ninep.Dialect) (*ninep.Client, *ninep.File, error) {
	conn, err := netaddr.Dial(ctx, serverAddr(server), service)
	if err != nil {
		return nil, nil, err
	}
	c, err := ninep.NewClient(ctx, conn, ninep.ClientConfig{Dialect: dialect})
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	who, err := user.Current()
	var root *ninep.File
	if err == nil {
		root, err = c.Attach(ctx, who.Username, "")
	}
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	return c, root, nil
}

func serverAddr(server string) string {
	return cmp.Or(server, os.Getenv("vdisk"), "tcp!127.0.0.1!"+service)
}

// ctl gives a command to a vdisk, and writes what it says.
func ctl(ctx context.Context, server string, w io.Writer, line string) (err error) {
	c, root, err := dial(ctx, server, ninep.Classic) // whose errors are in words
	if err != nil {
		return err
	}
	defer c.Close()
	f, err := root.Walk(ctx, "ctl")
	if err != nil {
		return fmt.Errorf("%s has no live images: %w", serverAddr(server), err)
	}
	if err := f.Open(ctx, ninep.ORDWR); err != nil {
		return err
	}
	if _, err := f.WriteAt(ctx, []byte(line), 0); err != nil {
		var e *ninep.Error
		if errors.As(err, &e) {
			return e // without what was done to ctl
		}
		return err
	}
	for b, err := range f.Stream(ctx, 0) {
		if err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// snapshotScore returns the score of a snapshot, by its day or tag, of a live
// image in $vdisk.
func snapshotScore(ctx context.Context, name, snap string) (string, error) {
	var log strings.Builder
	if err := ctl(ctx, "", &log, "log "+name); err != nil {
		return "", err
	}
	score := ""
	for line := range strings.Lines(log.String()) {
		f := strings.Fields(line)
		if len(f) >= 4 && (f[0] == snap || len(f) == 5 && f[4] == snap) {
			score = f[3] // the last with a tag
		}
	}
	if score == "" {
		return "", fmt.Errorf("%s has no snapshot %q", name, snap)
	}
	return score, nil
}
