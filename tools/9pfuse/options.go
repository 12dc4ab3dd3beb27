package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"strata/internal/disk"
	"strata/internal/ninep"
	"strata/internal/ninep/ninefuse"
)

// options are what stands behind -o.
type options struct {
	aname, uname, port string
	dialect            *ninep.Dialect // nil: the best that the server has
	msize              int
	mount              ninefuse.Config
}

// ignored are options that mount(8), fstab(5) and systemd hand on and that
// ask for nothing here.
var ignored = map[string]bool{
	"rw": true, "dev": true, "suid": true, "exec": true, "atime": true, "async": true, "relatime": true, "norelatime": true,
	"strictatime": true, "defaults": true, "auto": true, "noauto": true, "user": true, "nouser": true, "users": true,
	"group": true, "owner": true, "nofail": true, "_netdev": true, "default_permissions": true, "diratime": true,
	"lazytime": true, "nolazytime": true, "fsname": true, "subtype": true, "trans": true, "auto_cache": true, "big_writes": true,
}

// passed are options of mount(8) that the kernel gets.
var passed = map[string]bool{
	"nodev": true, "nosuid": true, "noexec": true, "noatime": true, "nodiratime": true, "sync": true, "dirsync": true,
}

func parseOptions(lists []string) (*options, error) {
	o := new(options)
	for _, list := range lists {
		for opt := range strings.SplitSeq(list, ",") {
			if opt == "" {
				continue
			}
			name, value, _ := strings.Cut(opt, "=")
			if err := o.set(name, value); err != nil {
				return nil, fmt.Errorf("option %s: %w", opt, err)
			}
		}
	}
	return o, nil
}

// set obeys one option.
func (o *options) set(name, value string) (err error) {
	m := &o.mount
	switch name {
	case "ro":
		m.ReadOnly = true
	case "aname":
		o.aname = value
	case "uname":
		o.uname = value
	case "port":
		o.port = value
	case "version":
		for _, d := range []ninep.Dialect{ninep.Linux, ninep.Unix, ninep.Classic} {
			if strings.EqualFold(value, d.String()) {
				o.dialect = &d
				return nil
			}
		}
		return fmt.Errorf("no such version: want 9p2000.L, 9p2000.u or 9p2000")
	case "msize":
		n, err := disk.ParseSize(value)
		if err != nil {
			return err
		}
		if n < ninep.MinMsize || n > ninep.MaxMsize {
			return fmt.Errorf("want %d to %d", ninep.MinMsize, ninep.MaxMsize)
		}
		o.msize = int(n)
	case "cache":
		if value != ninefuse.CacheNone && value != ninefuse.CacheLoose {
			return fmt.Errorf("want none or loose")
		}
		m.Cache = value
	case "direct_io":
		m.Cache = ninefuse.CacheNone
	case "kernel_cache":
		m.Cache = ninefuse.CacheLoose
	case "attr_timeout":
		m.AttrTime, err = seconds(value)
	case "entry_timeout":
		m.EntryTime, err = seconds(value)
	case "negative_timeout":
		m.NegativeTime, err = seconds(value)
	case "uid":
		m.UID, err = id(value)
	case "gid":
		m.GID, err = id(value)
	case "allow_other":
		m.AllowOther = true
	case "nodefault_permissions":
		m.ServerChecks = true
	default:
		switch {
		case passed[name]:
			m.MountFlags = append(m.MountFlags, name)
		case !ignored[name] && !strings.HasPrefix(name, "x-") && !strings.HasPrefix(name, "comment"):
			return fmt.Errorf("unknown")
		}
	}
	return err
}

// seconds reads a number of seconds. 0 is not at all, which Config writes as
// less than nothing.
func seconds(s string) (time.Duration, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || v < 0 || v > 1e9 {
		return 0, fmt.Errorf("want a number of seconds")
	}
	if v == 0 {
		return -1, nil
	}
	return time.Duration(v * float64(time.Second)), nil
}

func id(s string) (*uint32, error) {
	v, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("want a number")
	}
	n := uint32(v)
	return &n, nil
}
