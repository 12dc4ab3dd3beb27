package ninefuse

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"strata/internal/ninep"
)

// What the kernel may have in flight.
const (
	maxTransfer = 1 << 20 // bytes of one read or write, as many as it allows
	background  = 64      // read-ahead and the like: as many as the client has tags
)

// A Mounted is a tree in the machine's file system.
type Mounted struct {
	server *fuse.Server
	dir    string
	served chan struct{} // closed when nothing uses the client any more
}

// Mount puts the tree below root at dir, which is a directory, and serves it
// until it is unmounted. It takes root. The client is the caller's again after
// Wait.
func Mount(dir string, client *ninep.Client, root *ninep.File, cfg Config) (*Mounted, error) {
	switch st, err := os.Stat(dir); {
	case err != nil:
		return nil, fmt.Errorf("mount: %w", err)
	case !st.IsDir():
		return nil, fmt.Errorf("mount %s: %w", dir, syscall.ENOTDIR)
	}
	opts := &fuse.MountOptions{
		FsName: cfg.Source, Name: "9pfuse", AllowOther: cfg.AllowOther, Options: slices.Clone(cfg.MountFlags),
		MaxWrite: maxTransfer, MaxReadAhead: maxTransfer, MaxBackground: background, Debug: cfg.Debug,
		// Privileged programs need no fusermount3.
		DirectMount: os.Geteuid() == 0, DirectMountFlags: mountFlags(&cfg),
		DisableXAttrs: client.Dialect() != ninep.Linux,
		DisableSplice: true, // what is read is in memory already
	}
	if cfg.ReadOnly {
		opts.Options = append(opts.Options, "ro")
	}
	if cfg.AllowOther && !cfg.ServerChecks {
		opts.Options = append(opts.Options, "default_permissions")
	}
	if opts.DirectMount {
		// They are flags of mount(2), which refuses them as text.
		opts.Options = slices.DeleteFunc(opts.Options, func(o string) bool { return flagOf[o] != 0 || o == "ro" })
	}
	server, err := fuse.NewServer(New(client, root, cfg), dir, opts)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	m := &Mounted{server, dir, make(chan struct{})}
	go func() { // ends when it is unmounted; Wait waits for it
		server.Serve()
		close(m.served)
	}()
	if err := server.WaitMount(); err != nil {
		server.Unmount()
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	readAhead(dir)
	return m, nil
}

// readAhead has the kernel read as far ahead as one transfer, instead of
// 128 KiB, where that may be set: by root.
func readAhead(dir string) {
	var st syscall.Stat_t
	if syscall.Stat(dir, &st) == nil {
		name := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(st.Dev), unix.Minor(st.Dev))
		os.WriteFile(name, fmt.Append(nil, maxTransfer>>10), 0)
	}
}

// flagOf has the options of mount(8) that are flags of mount(2).
var flagOf = map[string]uintptr{
	"nodev": syscall.MS_NODEV, "nosuid": syscall.MS_NOSUID, "noexec": syscall.MS_NOEXEC, "noatime": syscall.MS_NOATIME,
	"nodiratime": syscall.MS_NODIRATIME, "sync": syscall.MS_SYNCHRONOUS, "dirsync": syscall.MS_DIRSYNC,
}

func mountFlags(cfg *Config) uintptr {
	flags := uintptr(syscall.MS_NOSUID | syscall.MS_NODEV)
	if cfg.ReadOnly {
		flags |= syscall.MS_RDONLY
	}
	for _, o := range cfg.MountFlags {
		flags |= flagOf[o]
	}
	return flags
}

// Wait returns when the tree has been unmounted.
func (m *Mounted) Wait() { <-m.served }

// Unmount ends the mount. It fails while files are open.
func (m *Mounted) Unmount() error { return m.server.Unmount() }

// Detach takes the tree out of the machine's file system although files are
// open. They can be used until the process ends, and Wait waits for them.
func (m *Mounted) Detach() error {
	if os.Geteuid() == 0 {
		if err := unix.Unmount(m.dir, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("umount %s: %w", m.dir, err)
		}
		return nil
	}
	if out, err := exec.Command("fusermount3", "-u", "-z", "--", m.dir).CombinedOutput(); err != nil {
		return fmt.Errorf("fusermount3 -u -z %s: %w: %s", m.dir, err, out)
	}
	return nil
}
