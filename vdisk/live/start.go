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

// What is read ahead is read by so many at once, each so much, from that many
// bytes of memory together.
const (
	aheadReaders = 4
	aheadBytes   = 256 << 10
)

// begin begins a start. The caller sees to it that end is called.
func (im *image) begin(ctx context.Context) *start {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &start{
		im: im, cancel: cancel, done: make(chan struct{}), time: im.cat.cfg.Now(),
		watch: watch{chunks: make(map[int64]uint64)},
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
	over := time.NewTimer(cmp.Or(s.im.cat.cfg.StartTime, startTime))
	defer over.Stop()
	before, err := s.known(ctx)
	if err == nil && !before.Off {
		err = s.ahead(ctx, before.Ranges)
	}
	if err == nil && !before.Off {
		select {
		case <-over.C:
		case <-ctx.Done():
		}
	}
	s.im.watch.CompareAndSwap(&s.watch, nil)
	if ctx.Err() != nil {
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
		for _, r := range list {
			for r.Len > 0 {
				piece := vdisk.Range{Off: r.Off, Len: min(r.Len, aheadBytes)}
				select {
				case next <- piece:
				case <-ctx.Done():
					return ctx.Err()
				}
				r.Off, r.Len = piece.End(), r.Len-piece.Len
			}
		}
		return nil
	})
	return group.Wait()
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
	mu     sync.Mutex // guards the fields below
	chunks map[int64]uint64
	blocks int
}

// note notes a read of n bytes at off.
func (w *watch) note(off, n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for b := off / bootBlock; b*bootBlock < off+n && w.blocks < maxBoot/bootBlock; b++ {
		bit := uint64(1) << (b % 64)
		if have := w.chunks[b/64]; have&bit == 0 {
			w.chunks[b/64] = have | bit
			w.blocks++
		}
	}
}

// ranges returns what was noted.
func (w *watch) ranges() (list []vdisk.Range) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var order []int64
	for c := range w.chunks {
		order = append(order, c)
	}
	slices.Sort(order)
	for _, c := range order {
		for i := range int64(64) {
			if w.chunks[c]>>i&1 == 0 {
				continue
			}
			off := (c*64 + i) * bootBlock
			if n := len(list); n > 0 && list[n-1].Off+list[n-1].Len == off {
				list[n-1].Len += bootBlock
			} else {
				list = append(list, vdisk.Range{Off: off, Len: bootBlock})
			}
		}
	}
	return list
}
