// Package ninetest tests servers of 9P: a tree in memory that can do all that
// the contract of package ninep knows, conversations kept as text, and a
// suite that every tree passes.
package ninetest
