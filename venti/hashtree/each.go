package hashtree

import (
	"context"
	"sync"
	"sync/atomic"
)

// each calls f for 0..n-1 from up to width goroutines, in rising order as
// far as they start. It returns the first error, after the last call has
// returned; calls that had not begun by then are left out.
func each(ctx context.Context, n, width int, f func(ctx context.Context, i int) error) error {
	if width = min(width, n); width <= 1 {
		for i := range n {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := f(ctx, i); err != nil {
				return err
			}
		}
		return nil
	}
	var (
		next  atomic.Int64
		wg    sync.WaitGroup
		once  sync.Once
		first error
	)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	run := func() {
		for {
			i := int(next.Add(1)) - 1
			if i >= n {
				return
			}
			err := ctx.Err()
			if err == nil {
				err = f(ctx, i)
			}
			if err != nil {
				once.Do(func() { first = err; cancel() })
				return
			}
		}
	}
	for range width - 1 {
		wg.Go(run)
	}
	run()
	wg.Wait()
	return first
}
