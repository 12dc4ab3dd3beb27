package live

import "context"

// StartDone is closed when the start of an image that somebody writes to is
// over.
func (c *Catalogue) StartDone(name string) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.images[name].start.done
}

// CheckHold does what is done each minute.
func (c *Catalogue) CheckHold(ctx context.Context) { c.checkHold(ctx, 0) }
