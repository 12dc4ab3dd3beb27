package hashtree

// A Count is a number of blocks and of bytes in them.
type Count struct{ Blocks, Bytes int64 }

// Add adds blocks and bytes to c.
func (c *Count) Add(blocks, bytes int64) {
	c.Blocks += blocks
	c.Bytes += bytes
}

// A Tally says what became of blocks. Bytes are those of the blocks as they
// are stored, after truncation; only holes count the bytes of the file (of
// leaves) that they stand for.
type Tally struct {
	Zero   Count // nothing but zeros; has no block
	Base   Count // in the same place in the base tree
	Shared Count // found in the store by a probe
	Sent   Count // written to the store, which may have had it all the same
}

func (t *Tally) add(u *Tally) {
	t.Zero.Add(u.Zero.Blocks, u.Zero.Bytes)
	t.Base.Add(u.Base.Blocks, u.Base.Bytes)
	t.Shared.Add(u.Shared.Blocks, u.Shared.Bytes)
	t.Sent.Add(u.Sent.Blocks, u.Sent.Bytes)
}

// put counts a block that was given to a putter.
func (t *Tally) put(sent bool, n int) {
	if sent {
		t.Sent.Add(1, int64(n))
	} else {
		t.Shared.Add(1, int64(n))
	}
}

// Stats says what writing a tree did.
type Stats struct {
	Leaves   Tally
	Pointers Tally // a hole's pointer blocks are not counted
}

// Add adds what u counted.
func (s *Stats) Add(u Stats) {
	s.Leaves.add(&u.Leaves)
	s.Pointers.add(&u.Pointers)
}
