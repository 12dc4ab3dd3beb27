// Package ventitest helps to test what reads and writes blocks: a store in
// memory, a store that fails when it is told to, and TestStore, the suite that
// every implementation of venti.Store passes.
//
//	func TestStore(t *testing.T) {
//		ventitest.TestStore(t, func(t *testing.T) venti.Store { return open(t) })
//	}
package ventitest
