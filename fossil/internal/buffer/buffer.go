package buffer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"strata/fossil/internal/format"
	"strata/internal/disk"
	"strata/venti"
)

// The errors that callers tell apart. Those of format come back too.
var (
	ErrFull     = errors.New("disk is full")
	ErrMismatch = errors.New("block label mismatch")
	ErrAddress  = errors.New("illegal block address")
	ErrVenti    = errors.New("venti i/o error")
	ErrReadOnly = errors.New("opened for reading only")
	ErrClosed   = errors.New("closed")
)

// Config holds the options of Open.
type Config struct {
	Venti    venti.BlockReader // nil if there is none
	Memory   int64             // bytes for blocks, dirty ones included; 0 means 32 MiB
	Patience time.Duration     // for one read from Venti; 0 means as long as Venti has
	ReadOnly bool              // change nothing, not even to apply a log
	LogBytes int64             // of a log that is made; 0 means a thirty-second of the partition, at most 64 MiB
}

const (
	defaultMemory = 32 << 20
	minBlocks     = 64 // in the cache
	minReserve    = 64 // a snapshot and its names take less than half
	maxReserve    = 4096
	minLog        = 64 << 10
	maxLog        = 64 << 20
)

// A Buffer is an open partition. Its methods may be called at once.
type Buffer struct {
	file     disk.File
	h        format.Header
	venti    venti.BlockReader
	patience time.Duration
	cache    *cache
	log      *redo // nil if opened for reading; the committer's own
	empty    [2][]byte
	dirty    int // so many changed blocks make updates wait, or a checkpoint due
	record   int // so many bytes of changes are a group's limit
	counts   counts
	reserve  uint32 // blocks that Update leaves, and half of them UpdateReserved

	kick    chan struct{} // wakes the committer
	jobs    chan job      // what else the committer does
	tidy    chan struct{} // wakes the closing of trees
	moments chan struct{} // has room for the one Moment
	stop    func()        // ends both
	workers sync.WaitGroup

	mu         sync.Mutex // guards the fields below; taken before cache.mu
	err        error      // the first failure of a write, or ErrClosed; no update succeeds after it
	super      format.Super
	free       *freemap // blocks that can be allocated
	used       uint32   // blocks that are neither free nor to be so
	running    *group   // what updates go into
	committing *group   // what is being written, or nil
	intents    map[uint64]intent
	stuck      map[uint64]error // why intents are left to the next program
	nextIntent uint64
	tidied     chan struct{} // closed, and made again, when an intent is done or stuck
	moment     *Moment       // that there is, or nil

	// The committer's own, as is log.
	logged  map[uint32][]byte // blocks whose changes are in the log, not in their places
	durable map[uint64]intent // intents as the log has them
	plain   []byte            // the super block as it is in its place
}

// Open opens the partition in file. If a program that had it open before came
// to grief, the changes in its log are made first: unless cfg.ReadOnly, on the
// disk.
func Open(file disk.File, cfg Config) (*Buffer, error) {
	b := &Buffer{
		file: file, venti: cfg.Venti, patience: cfg.Patience,
		kick: make(chan struct{}, 1), jobs: make(chan job), tidy: make(chan struct{}, 1), moments: make(chan struct{}, 1),
		running: newGroup(), intents: map[uint64]intent{}, stuck: map[uint64]error{}, tidied: make(chan struct{}),
		logged: map[uint32][]byte{}, durable: map[uint64]intent{},
	}
	raw := make([]byte, format.HeaderSize)
	if err := disk.ReadFull(file, raw, format.HeaderOffset); err != nil {
		return nil, fmt.Errorf("read header: %w", err)
	}
	var err error
	if b.h, err = format.UnpackHeader(raw, file.Size()); err != nil {
		return nil, err
	}
	if cfg.Memory == 0 {
		cfg.Memory = defaultMemory
	}
	limit := max(int(cfg.Memory/int64(b.h.BlockSize)), minBlocks)
	b.dirty = limit / 4 // in the running group, in the one that is committed, in the log
	b.cache = newCache(limit, b.load)
	for i, t := range []format.Type{format.Data, format.Data + 1} {
		b.empty[i] = make([]byte, b.h.BlockSize)
		format.Extend(b.empty[i], 0, t)
	}
	if err := b.open(cfg); err != nil {
		return nil, err
	}
	if !cfg.ReadOnly {
		ctx, stop := context.WithCancel(context.Background())
		b.stop = stop
		b.workers.Go(func() { b.commitAll(ctx) })
		b.workers.Go(func() { b.closeTrees(ctx) })
		notify(b.tidy)
	}
	return b, nil
}

// open reads the super block and the log, and all labels.
func (b *Buffer) open(cfg Config) error {
	super, err := b.load(context.Background(), localKey(b.h.Super))
	if err != nil {
		return fmt.Errorf("read super block: %w", err)
	}
	b.plain = super
	if b.super, err = format.UnpackSuper(super); err != nil {
		return err
	}
	runs, _ := b.table()
	if b.super.Logged {
		if runs == nil {
			return fmt.Errorf("%w: the super block does not say where it is", errLog)
		}
		if err := b.replay(newRedo(b.file, &b.h, runs)); err != nil {
			return fmt.Errorf("replay log: %w", err)
		}
		if now, ok := b.cache.peek(localKey(b.h.Super)); ok {
			if b.super, err = format.UnpackSuper(now); err != nil {
				return err
			}
		}
	}
	if err := b.readLabels(); err != nil {
		return err
	}
	if cfg.ReadOnly {
		b.err = ErrReadOnly
		b.log = nil
		return nil
	}
	if b.log != nil { // it was replayed
		if err := b.checkpoint(); err != nil {
			return fmt.Errorf("replay log: %w", err)
		}
	} else if err := b.findLog(runs, cfg.LogBytes); err != nil {
		return err
	}
	b.reserve = min(max(b.h.Blocks()/64, minReserve), maxReserve, b.h.Blocks()/8)
	b.record = int(b.log.ring / 3)
	// From now on the super block in memory has the version that it has on the
	// disk while the log matters, so that no change in the log touches it.
	b.super.Logged = true
	now := make([]byte, b.h.BlockSize)
	copy(now, b.plain)
	b.super.Pack(now)
	b.cache.put(localKey(b.h.Super), now, 1)
	return nil
}

// table returns where the super block says that the log lies.
func (b *Buffer) table() ([]run, bool) {
	if len(b.plain) < format.SuperSize+sectorSize {
		return nil, false
	}
	return unpackTable(b.plain[format.SuperSize:], b.h.Blocks())
}

// replay takes what the log says into the cache, and pins it there.
func (b *Buffer) replay(l *redo) error {
	if err := l.readHeader(); err != nil {
		return err
	}
	l.live = true
	r := newReplay(&b.h, func(block uint32) ([]byte, error) { return b.load(context.Background(), localKey(block)) })
	for {
		changes, ok, err := l.next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if err := r.apply(changes); err != nil {
			return err
		}
	}
	b.log = l
	for id, in := range r.intents {
		b.intents[id], b.durable[id] = in, in
		b.nextIntent = max(b.nextIntent, id+1)
	}
	for block, data := range r.blocks {
		b.cache.put(localKey(block), data, 1)
		b.logged[block] = data
	}
	return nil
}

// readLabels makes the map of free blocks.
func (b *Buffer) readLabels() error {
	b.free = newFreemap(b.h.Blocks())
	lpb, n := b.h.LabelsPerBlock(), b.h.Blocks()
	const chunk = 1 << 20
	per := max(uint32(chunk/b.h.BlockSize), 1)
	buf := make([]byte, int(per)*b.h.BlockSize)
	for first := b.h.Label; first < b.h.Data; first += per {
		part := buf[:int(min(per, b.h.Data-first))*b.h.BlockSize]
		if err := disk.ReadFull(b.file, part, b.h.Offset(first)); err != nil {
			return fmt.Errorf("read labels: %w", err)
		}
		for i := uint32(0); len(part) > 0; i++ {
			labels := part[:b.h.BlockSize]
			part = part[b.h.BlockSize:]
			if data := b.logged[first+i]; data != nil {
				labels = data
			}
			for j := range lpb {
				a := (first+i-b.h.Label)*lpb + j
				if a >= n {
					break
				}
				l, err := format.UnpackLabel(labels[j*format.LabelSize:])
				if err == nil && l.Free(b.super.EpochLow) {
					b.free.set(a, true)
				}
			}
		}
	}
	b.used = n - b.free.free
	return nil
}

// BlockSize returns the length of a block.
func (b *Buffer) BlockSize() int { return b.h.BlockSize }

// Super returns the super block as it is now, durable or not.
func (b *Buffer) Super() format.Super {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.super
}

// Used returns how many data blocks are in use, and how many there are.
func (b *Buffer) Used() (used, total uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used, b.h.Blocks()
}

// load reads a block.
func (b *Buffer) load(ctx context.Context, k key) ([]byte, error) {
	buf := make([]byte, b.h.BlockSize)
	if k.block != onVenti {
		if err := disk.ReadFull(b.file, buf, b.h.Offset(k.block)); err != nil {
			return nil, fmt.Errorf("read block %d: %w", k.block, err)
		}
		b.counts.diskReads.Add(1)
		return buf, nil
	}
	if b.venti == nil {
		return nil, fmt.Errorf("%w: no server for %v", ErrVenti, k.score)
	}
	n, err := b.readVenti(ctx, k, buf)
	if err != nil {
		return nil, err
	}
	format.Extend(buf, n, k.typ())
	return buf, nil
}

// errPatience ends a read that Venti does not answer.
var errPatience = errors.New("no answer")

// readVenti reads a block from Venti.
func (b *Buffer) readVenti(ctx context.Context, k key, buf []byte) (int, error) {
	c, start := &b.counts, time.Now()
	c.ventiReads.Add(1)
	c.ventiRunning.Add(1)
	wait := ctx
	if b.patience > 0 {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeoutCause(ctx, b.patience, errPatience)
		defer cancel()
	}
	n, err := b.venti.ReadBlock(wait, k.score, venti.Type(k.typ()), buf)
	c.ventiRunning.Add(-1)
	c.ventiTime.Add(int64(time.Since(start)))
	c.ventiBytes.Add(int64(n))
	switch {
	case err == nil:
		return n, nil
	case ctx.Err() != nil:
		return 0, ctx.Err()
	}
	c.ventiErrors.Add(1)
	if context.Cause(wait) == errPatience {
		// Not the error of a context: it is for all who wait for the block.
		return 0, fmt.Errorf("%w: read %v: %w in %v", ErrVenti, k.score, errPatience, b.patience)
	}
	return 0, fmt.Errorf("%w: read %v: %w", ErrVenti, k.score, err)
}

// Label returns the label of a data block.
func (b *Buffer) Label(ctx context.Context, addr uint32) (format.Label, error) {
	block, off, err := b.labelAt(addr)
	if err != nil {
		return format.Label{}, err
	}
	data, err := b.cache.get(ctx, localKey(block))
	if err != nil {
		return format.Label{}, err
	}
	return format.UnpackLabel(data[off:])
}

// labelAt returns where the label of addr is.
func (b *Buffer) labelAt(addr uint32) (block uint32, off int, err error) {
	if addr >= b.h.Blocks() {
		return 0, 0, fmt.Errorf("%w %#x", ErrAddress, addr)
	}
	lpb := b.h.LabelsPerBlock()
	return b.h.Label + addr/lpb, int(addr%lpb) * format.LabelSize, nil
}

// emptyBlock returns what a hole of type t stands for.
func (b *Buffer) emptyBlock(t format.Type) []byte { return b.empty[min(t.Level(), 1)] }

// Get returns the block of type t that p leads to, whole. Nobody may change
// it. The label of a local one must say that it has that type and tag, or the
// error wraps ErrMismatch: p is wrong, or old. Errors of Venti wrap ErrVenti.
func (b *Buffer) Get(ctx context.Context, p format.Pointer, t format.Type, tag uint32) ([]byte, error) {
	return b.get(ctx, p, t, tag, b.cache.get)
}

// GetOnce is Get for one who will not need the block again: it takes no room
// in memory from others.
func (b *Buffer) GetOnce(ctx context.Context, p format.Pointer, t format.Type, tag uint32) ([]byte, error) {
	return b.get(ctx, p, t, tag, b.cache.once)
}

func (b *Buffer) get(ctx context.Context, p format.Pointer, t format.Type, tag uint32, get func(context.Context, key) ([]byte, error)) ([]byte, error) {
	if p == format.Hole {
		return b.emptyBlock(t), nil
	}
	addr, ok := p.Addr()
	if !ok {
		return get(ctx, scoreKey(p.Score(), t))
	}
	if addr >= b.h.Blocks() {
		return nil, fmt.Errorf("%w %#x", ErrAddress, addr)
	}
	data, err := get(ctx, localKey(b.h.Data+addr))
	if err != nil {
		return nil, err
	}
	// Only now: the label says whose the data were when they were read, or are
	// somebody else's by now.
	l, err := b.Label(ctx, addr)
	if err != nil {
		return nil, err
	}
	if err := match(addr, l, t, tag); err != nil {
		return nil, err
	}
	return data, nil
}

// match returns an error unless the label l of addr is what it should be.
func match(addr uint32, l format.Label, t format.Type, tag uint32) error {
	if !l.InUse() || l.Type != t || l.Tag != tag {
		return mismatch(addr, l, t, tag)
	}
	return nil
}

// mismatch is apart from match so that a label which matches needs no
// allocation.
func mismatch(addr uint32, l format.Label, t format.Type, tag uint32) error {
	return fmt.Errorf("%w: block %#x is %v, want %v tag %#x", ErrMismatch, addr, &l, t, tag)
}

// Close waits until no tree is left to be closed, makes all that was done
// durable, and ends the use of b. It leaves a partition without a log to be
// replayed. After a failure, or when ctx ends first, it leaves what there is:
// the next Open does the rest. The file is the caller's.
func (b *Buffer) Close(ctx context.Context) error {
	b.mu.Lock()
	readOnly, done := b.err == ErrReadOnly, b.err == ErrClosed
	b.mu.Unlock()
	if done {
		return nil
	}
	var err error
	if !readOnly {
		if err = b.Settle(ctx); err == nil {
			err = b.Sync(ctx)
		}
	}
	b.mu.Lock()
	if b.err == nil || readOnly {
		b.err = ErrClosed
	}
	late := b.running // of updates that came after the sync
	b.mu.Unlock()
	if readOnly {
		return nil
	}
	if err == nil && !late.empty() {
		b.wake()
		<-late.done
		err = late.err
	}
	b.stop()
	b.workers.Wait()
	if err == nil {
		err = b.finish()
	}
	return err
}

// Blocks returns how many data blocks there are.
func (b *Buffer) Blocks() uint32 { return b.h.Blocks() }
