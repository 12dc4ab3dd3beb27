package venti

// SetMaxUnsynced makes r remember fewer blocks.
func (r *Remote) SetMaxUnsynced(n int) { r.most = n }
