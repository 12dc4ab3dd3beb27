//go:build !race

package mount

const racing = false
