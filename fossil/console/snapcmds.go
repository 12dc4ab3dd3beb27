package console

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"strata/fossil"
)

// snapCommands are about snapshots.
func snapCommands() []Command {
	return []Command{{
		Name: "snap", Args: "[-a] [-s dir] [-d dst]", Scope: Open,
		Help: "Take a snapshot, and print what it is called.\n" +
			"-a archive it: it is for ever; without it is temporary, until snapclean or epoch ends it;\n" +
			"-s of this directory (default /active); -d call it so, and not by its time.",
		Run: runSnap,
	}, {
		Name: "snaptime", Args: "[-a hhmm] [-s minutes] [-t minutes]", Scope: Open,
		Help: "Say what is done by the clock, or without a flag print that.\n" +
			"-a take an archival snapshot each day at this time;\n" +
			"-s take a temporary one in each minute that is a multiple of this;\n" +
			"-t let go of temporary ones that are older. Each may be none, which is the default,\n" +
			"and for -t means to keep all. Until the file system is closed.",
		Run: runSnaptime,
	}, {
		Name: "snapclean", Args: "[minutes]", Scope: Open,
		Help: "Let go of temporary snapshots that are older, or older than snaptime -t says.\nWhat is not archived yet stays, and so does what is newer than that.",
		Run:  runSnapclean,
	}, {
		Name: "epoch", Args: "[[-ry] n]", Scope: Open,
		Help: "Print the oldest epoch that is kept, and that of the active tree, or let go of what is older than n.\n" +
			"If there are snapshots that would be lost, they are listed, and nothing else is done unless\n" +
			"-y says so; -r takes their names out of /snapshot, too.",
		Run: runEpoch,
	}}
}

func runSnap(ctx context.Context, c *Call) error {
	var cfg fossil.SnapConfig
	fs := c.Flags()
	fs.BoolVarP(&cfg.Archive, "archive", "a", false, "")
	fs.StringVarP(&cfg.Source, "source", "s", "", "")
	fs.StringVarP(&cfg.Path, "destination", "d", "", "")
	if err := c.Parse(fs, 0, 0); err != nil {
		return err
	}
	path, err := c.Fsys.FS().Snapshot(ctx, cfg)
	if err == nil {
		c.Printf("\t%s\n", path)
	}
	return err
}

// none is what snaptime has for never.
const none = "none"

func runSnaptime(_ context.Context, c *Call) error {
	var archive, snap, life string
	fs := c.Flags()
	fs.StringVarP(&archive, "archive", "a", "", "")
	fs.StringVarP(&snap, "snapshot", "s", "", "")
	fs.StringVarP(&life, "timeout", "t", "", "")
	if err := c.Parse(fs, 0, 0); err != nil {
		return err
	}
	f := c.Fsys.FS()
	s := f.Schedule()
	if fs.NFlag() == 0 {
		c.Printf("\tsnaptime -a %s -s %s -t %s\n", timeOfDay(s), minutes(s.Snap), minutes(s.Life))
		return nil
	}
	var err error
	if fs.Changed("archive") {
		if s.Archive, s.ArchiveAt, err = parseTimeOfDay(archive); err != nil {
			return err
		}
	}
	if fs.Changed("snapshot") {
		if s.Snap, err = parseMinutes(snap, 1); err != nil {
			return err
		}
	}
	if fs.Changed("timeout") {
		if s.Life, err = parseMinutes(life, 1); err != nil {
			return err
		}
	}
	return f.SetSchedule(s)
}

func timeOfDay(s fossil.Schedule) string {
	if !s.Archive {
		return none
	}
	return fmt.Sprintf("%02d%02d", s.ArchiveAt/60, s.ArchiveAt%60)
}

// parseTimeOfDay reads hhmm, or none.
func parseTimeOfDay(s string) (is bool, minutes int, err error) {
	if s == none {
		return false, 0, nil
	}
	t, err := time.Parse("1504", s)
	if err != nil || len(s) != 4 {
		return false, 0, fmt.Errorf("bad time %q: want hhmm or none", s)
	}
	return true, t.Hour()*60 + t.Minute(), nil
}

func minutes(d time.Duration) string {
	if d == 0 {
		return none
	}
	return strconv.Itoa(int(d / time.Minute))
}

// parseMinutes reads a number of minutes, at least so many, or none, which is
// 0.
func parseMinutes(s string, least int) (time.Duration, error) {
	if s == none {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > 1<<31 {
		return 0, fmt.Errorf("bad number of minutes %q", s)
	}
	return time.Duration(n) * time.Minute, nil
}

func runSnapclean(ctx context.Context, c *Call) error {
	if err := c.Parse(c.Flags(), 0, 1); err != nil {
		return err
	}
	f := c.Fsys.FS()
	age := f.Schedule().Life
	if age == 0 {
		age = fossil.Keep
	}
	if len(c.Args) == 1 && c.Args[0] != none {
		var err error
		if age, err = parseMinutes(c.Args[0], 0); err != nil {
			return err
		}
	} else if len(c.Args) == 1 {
		age = fossil.Keep
	}
	return f.SnapClean(ctx, age)
}

func runEpoch(ctx context.Context, c *Call) error {
	var forget, yes bool
	fs := c.Flags()
	fs.BoolVarP(&forget, "remove", "r", false, "")
	fs.BoolVarP(&yes, "yes", "y", false, "")
	if err := c.Parse(fs, 0, 1); err != nil {
		return err
	}
	f := c.Fsys.FS()
	low, high := f.Epochs()
	if len(c.Args) == 0 {
		if fs.NFlag() > 0 {
			return c.Usage()
		}
		c.Printf("\tlow %d hi %d\n", low, high)
		return nil
	}
	n, err := strconv.ParseUint(c.Args[0], 0, 32)
	to := uint32(n)
	switch {
	case err != nil:
		return fmt.Errorf("bad epoch %q", c.Args[0])
	case to == 0:
		return errors.New("cannot set epoch to 0")
	case to > high:
		return fmt.Errorf("%d > hi %d", to, high)
	case to < low:
		return fmt.Errorf("%d < low %d: blocks of older snapshots are in use again", to, low)
	}
	found := 0
	for _, dir := range []string{"/archive", "/snapshot"} {
		list, err := f.LocalSnapshots(ctx, dir)
		if err != nil {
			return err
		}
		for _, s := range list {
			if s.Epoch != 0 && s.Epoch < to && !s.Dead {
				c.Printf("\t%d\tclri %s\n", s.Epoch, quote(s.Path))
				found++
			}
		}
	}
	c.Printf("\t%d snapshots found with epoch < %d\n", found, to)
	if found > 0 && !yes {
		return nil
	}
	if err := f.SetEpochLow(ctx, to); err != nil {
		return err
	}
	if forget && yes {
		return f.ForgetDead(ctx)
	}
	return nil
}
