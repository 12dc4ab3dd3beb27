package ninep

import "maps"

// NoUser is the user that has no rights but everyone's, and stands for any
// user that is not known.
const NoUser = "none"

// noUserID is Linux's nobody.
const noUserID = 65534

// Users translates between the names that trees use and the numbers that
// Unix uses. As in Plan 9 a user is also a group, so one table serves both. What
// it says does not change; nil knows only root, which is 0, and none.
type Users struct {
	ids   map[string]uint32
	names map[uint32]string
	host  *hostUsers // instead of both
}

// NewUsers makes a table. Names that are not in it get the number 65534 and
// numbers that are not in it the name none; an entry for none changes the
// number.
func NewUsers(ids map[string]uint32) *Users {
	u := &Users{ids: maps.Clone(ids), names: make(map[uint32]string)}
	for name, id := range ids {
		// Of two names for a number the first in order is its name.
		if old, ok := u.names[id]; !ok || name < old {
			u.names[id] = name
		}
	}
	return u
}

// ID returns the number of a user or group.
func (u *Users) ID(name string) uint32 {
	if u == nil {
		if name == "root" {
			return 0
		}
		return noUserID
	}
	if u.host != nil {
		return u.host.id(name)
	}
	if id, ok := u.ids[name]; ok {
		return id
	}
	if id, ok := u.ids[NoUser]; ok {
		return id
	}
	return noUserID
}

// Name returns the user or group with a number.
func (u *Users) Name(id uint32) string {
	if u == nil {
		if id == 0 {
			return "root"
		}
		return NoUser
	}
	if u.host != nil {
		return u.host.name(id)
	}
	if name, ok := u.names[id]; ok {
		return name
	}
	return NoUser
}
