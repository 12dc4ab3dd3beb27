package ninep

import (
	"os/user"
	"strconv"
	"sync"
)

// hostUsers are the names and numbers of this machine's users and groups. A
// number without a name is a name itself, in decimal.
type hostUsers struct {
	mu    sync.Mutex // guards the fields below
	ids   map[string]uint32
	names map[uint32]string
}

// maxHostUsers bounds what is remembered; what comes after is looked up each
// time.
const maxHostUsers = 1 << 14

// HostUsers returns a table of this machine's users and groups, which are
// looked up as they are met. A name that the machine does not know has the
// number of NoUser, and a number that it does not know is its own name, so
// that every number is the same again after it was a name.
func HostUsers() *Users {
	return &Users{host: &hostUsers{ids: make(map[string]uint32), names: make(map[uint32]string)}}
}

func (h *hostUsers) id(name string) uint32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if id, ok := h.ids[name]; ok {
		return id
	}
	id := uint32(noUserID)
	if n, err := strconv.ParseUint(name, 10, 32); err == nil {
		id = uint32(n)
	} else if u, err := user.Lookup(name); err == nil {
		id = parseID(u.Uid)
	} else if g, err := user.LookupGroup(name); err == nil {
		id = parseID(g.Gid)
	}
	if len(h.ids) < maxHostUsers {
		h.ids[name] = id
	}
	return id
}

func parseID(s string) uint32 {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return noUserID
	}
	return uint32(n)
}

func (h *hostUsers) name(id uint32) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if name, ok := h.names[id]; ok {
		return name
	}
	name := strconv.FormatUint(uint64(id), 10)
	if u, err := user.LookupId(name); err == nil && parseID(u.Uid) == id {
		name = u.Username
	}
	if len(h.names) < maxHostUsers {
		h.names[id] = name
	}
	return name
}
