package ninefuse

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// A request is the context of one of the kernel's. The kernel wants to be rid
// of it at every signal to the thread that waits, but few programs are ready
// for EINTR from a file system, and local ones never say it. So it ends only if
// the signal ends the thread, unless any is set.
type request struct {
	cancel <-chan struct{} // closed at the first signal
	pid    uint32          // the thread
	any    bool            // every signal counts

	mu    sync.Mutex // guards the fields below
	done  chan struct{}
	ended chan struct{}
}

func newRequest(cancel <-chan struct{}, pid uint32) *request {
	return &request{cancel: cancel, pid: pid}
}

func (r *request) Deadline() (time.Time, bool) { return time.Time{}, false }
func (r *request) Value(any) any               { return nil }

func (r *request) Done() <-chan struct{} {
	if r.any {
		return r.cancel
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done == nil {
		r.done, r.ended = make(chan struct{}), make(chan struct{})
		go r.watch() // until end
	}
	return r.done
}

func (r *request) Err() error {
	select {
	case <-r.Done():
		return context.Canceled
	default:
		return nil
	}
}

// end says that the request has been done.
func (r *request) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended != nil {
		close(r.ended)
	}
}

// watch closes done when the thread is about to end. The kernel tells of the
// first signal only: after that the thread is looked at again and again.
func (r *request) watch() {
	select {
	case <-r.cancel:
	case <-r.ended:
		return
	}
	for !killed(r.pid) {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-r.ended:
			return
		}
	}
	close(r.done)
}

// harmless are the signals that end no process unless it wants that: SIGCHLD,
// SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG and SIGWINCH.
const harmless = 1<<16 | 1<<17 | 1<<18 | 1<<19 | 1<<20 | 1<<21 | 1<<22 | 1<<27

// killed tells whether a signal is before the thread that ends it, or whether
// it is not there.
func killed(pid uint32) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return os.IsNotExist(err)
	}
	set := func(name string) uint64 {
		_, v, _ := bytes.Cut(b, []byte("\n"+name+":\t"))
		n, _ := strconv.ParseUint(string(v[:min(16, len(v))]), 16, 64)
		return n
	}
	pending := set("SigPnd") | set("ShdPnd")
	return pending&^(set("SigBlk")|set("SigIgn")|set("SigCgt")|harmless) != 0
}
