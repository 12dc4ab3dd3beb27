package live

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"strata/vdisk"
)

// A start begins when somebody opens a disk for writing that nobody writes to,
// as a guest does that starts. What is read of it for a while is noted, and
// becomes the boot set of the image; what the boot set has from before is read
// ahead meanwhile, into the caches of the file system and of Venti.
//
// It ends when the while is over, or the last writer leaves.
type start struct {
	im     *image
	cancel context.CancelFunc
	done   chan struct{} // closed when its goroutine has ended
	time   time.Time
	watch  watch
}

// startTime is how long a start takes at most. Debian is there after 100
// seconds where QEMU emulates the processor, and has other work to do on it.
const startTime = 2 * time.Minute

// What is read ahead is read by so many at once, each so much; so much at a time
// is in the order of the disk, which mostly is that of Venti's log, and then
// comes what was read next.
const (
	aheadReaders = 4
	aheadBytes   = 256 << 10
	sweepBytes   = 4 << 20
)

// defaultAhead is how far what is read ahead gets before the guest: the caches
// must have room for it, beside what they are used for besides.
const defaultAhead = 16 << 20

// begin begins a start. The caller sees to it that end is called.
func (im *image) begin(ctx context.Context) *start {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &start{
		im: im, cancel: cancel, done: make(chan struct{}), time: im.cat.cfg.Now(),
		watch: watch{chunks: make(map[int64]uint64), more: make(chan struct{}, 1)},
	}
	im.watch.Store(&s.watch)
	go s.run(ctx)
	return s
}

// end ends a start.
func (s *start) end() {
	s.cancel()
	<-s.done
}

func (s *start) run(ctx context.Context) {
	defer close(s.done)
	defer s.cancel()
	during, over := context.WithTimeout(ctx, cmp.Or(s.im.cat.cfg.StartTime, startTime))
	defer over()
	before, err := s.known(ctx)
	if err == nil && !before.Off {
		err = s.ahead(during, before.Ranges)
		if during.Err() == nil && err == nil {
			<-during.Done()
		}
	}
	s.im.watch.CompareAndSwap(&s.watch, nil)
	if during.Err() != nil {
		err = nil
	}
	if err == nil && (before == nil || !before.Off) {
		err = s.note(context.WithoutCancel(ctx), before)
	}
	if err != nil {
		s.im.cat.log.Warn("read ahead what a start reads", "image", s.im.name, "error", err)
	}
}

// known returns what the image's last start has read.
func (s *start) known(ctx context.Context) (b *BootSet, err error) {
	err = s.with(ctx, func(dir string) error {
		b, err = s.im.cat.readBootSet(ctx, dir)
		return err
	})
	return b, err
}

// with runs f while the image stays what it is, with the directory that its boot
// set is in. If there is none it does not.
func (s *start) with(ctx context.Context, f func(dir string) error) error {
	if err := s.im.gate.Acquire(ctx, 1); err != nil {
		return err
	}
	defer s.im.gate.Release(1)
	if s.im.gone || s.im.layout == nil {
		return errGone
	}
	return f(cmp.Or(s.im.origin, s.im.dir()))
}

// ahead reads ranges of the disk.
func (s *start) ahead(ctx context.Context, list []vdisk.Range) error {
	group, ctx := errgroup.WithContext(ctx)
	next := make(chan vdisk.Range)
	for range min(aheadReaders, len(list)) {
		group.Go(func() error {
			buf := make([]byte, aheadBytes)
			for r := range next {
				err := s.with(ctx, func(string) error {
					if n := min(r.Len, s.im.layout.Size-r.Off); n > 0 {
						return s.im.readAt(ctx, buf[:n], r.Off)
					}
					return nil // it has become smaller
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(next)
		done := int64(0)
		for _, r := range sweeps(list) {
			if err := s.watch.wait(ctx, done-cmp.Or(s.im.cat.cfg.Ahead, defaultAhead)); err != nil {
				return err
			}
			select {
			case next <- r:
			case <-ctx.Done():
				return ctx.Err()
			}
			done += r.Len
		}
		return nil
	})
	return group.Wait()
}

// sweeps cuts ranges into pieces, and sorts those that are read in one sweep.
func sweeps(list []vdisk.Range) (pieces []vdisk.Range) {
	first, size := 0, int64(0)
	for _, r := range list {
		for r.Len > 0 {
			piece := vdisk.Range{Off: r.Off, Len: min(r.Len, aheadBytes)}
			pieces = append(pieces, piece)
			r.Off, r.Len = piece.End(), r.Len-piece.Len
			if size += piece.Len; size >= sweepBytes {
				slices.SortFunc(pieces[first:], byPlace)
				first, size = len(pieces), 0
			}
		}
	}
	slices.SortFunc(pieces[first:], byPlace)
	return pieces
}

// note makes what was read the boot set, unless it was too little for a start,
// or is what the boot set says already.
func (s *start) note(ctx context.Context, before *BootSet) error {
	b := &BootSet{Time: s.time, Ranges: s.watch.ranges()}
	if b.bytes() < minBoot || before != nil && slices.Equal(before.Ranges, b.Ranges) {
		return nil
	}
	return s.with(ctx, func(dir string) error {
		if is, err := s.im.cat.isImage(ctx, dir); err != nil || !is {
			return err // an origin may be gone
		}
		now, err := s.im.cat.readBootSet(ctx, dir)
		if err != nil || now.Off {
			return err // it was switched off meanwhile
		}
		return s.im.cat.host.replaceFile(ctx, dir, bootFile, packBootSet(b))
	})
}

// A watch notes which blocks of a disk are read.
type watch struct {
	more chan struct{} // has one when more was noted

	mu     sync.Mutex       // guards the fields below
	chunks map[int64]uint64 // a bit for each block, 64 together
	list   []vdisk.Range    // of the blocks, as they came
	bytes  int64            // of list
}

// note notes a read of n bytes at off.
func (w *watch) note(off, n int64) {
	w.mu.Lock()
	was := w.bytes
	for b := off / bootBlock; b*bootBlock < off+n && w.bytes < maxBoot; b++ {
		bit := uint64(1) << (b % 64)
		if have := w.chunks[b/64]; have&bit == 0 {
			w.chunks[b/64] = have | bit
			w.bytes += bootBlock
			if i := len(w.list) - 1; i >= 0 && w.list[i].End() == b*bootBlock {
				w.list[i].Len += bootBlock
			} else {
				w.list = append(w.list, vdisk.Range{Off: b * bootBlock, Len: bootBlock})
			}
		}
	}
	more := w.bytes > was
	w.mu.Unlock()
	if more {
		select {
		case w.more <- struct{}{}:
		default:
		}
	}
}

// wait waits until n bytes have been noted. One may wait at once.
func (w *watch) wait(ctx context.Context, n int64) error {
	for {
		w.mu.Lock()
		have := w.bytes
		w.mu.Unlock()
		if have >= n {
			return nil
		}
		select {
		case <-w.more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ranges returns what was noted.
func (w *watch) ranges() []vdisk.Range {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.list)
}
