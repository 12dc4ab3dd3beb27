package store

import "sync"

// flights are the reads that are under way, so that a block which many ask
// for is read once. The zero value has none.
type flights struct {
	mu sync.Mutex
	m  map[key]chan struct{}
}

// begin starts the read of a key, or returns a channel that is closed when
// the read which somebody else has started ends.
func (f *flights) begin(k *key) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	ch, ok := f.m[*k]
	if !ok {
		if f.m == nil {
			f.m = make(map[key]chan struct{})
		}
		f.m[*k] = nil
		return nil
	}
	if ch == nil {
		ch = make(chan struct{})
		f.m[*k] = ch
	}
	return ch
}

func (f *flights) end(k *key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ch := f.m[*k]; ch != nil {
		close(ch)
	}
	delete(f.m, *k)
}
