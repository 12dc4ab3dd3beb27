//go:build race

package mount

// racing tells that the race detector watches.
const racing = true
