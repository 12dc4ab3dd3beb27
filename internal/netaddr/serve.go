package netaddr

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"
)

// Serve accepts connections from ln until ctx ends, which is no error, or ln
// fails, and then closes ln. admit is called for each before the next one is
// accepted; it returns what is to be done with it, in a goroutine of its own,
// or nil for one that it has turned away. The context given ends with ctx, or
// when ln fails. Whoever has a connection closes it. Serve returns after the
// last of those goroutines.
//
// What may pass, such as too many open files, is logged and waited for.
func Serve(ctx context.Context, ln net.Listener, log *slog.Logger, admit func(net.Conn) func(context.Context)) error {
	outer := ctx
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	var conns sync.WaitGroup
	defer func() {
		if stop() {
			ln.Close()
		}
		cancel()
		conns.Wait()
	}()
	for {
		nc, err := ln.Accept()
		switch {
		case err == nil:
		case outer.Err() != nil:
			return nil
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOBUFS),
			errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.ECONNABORTED):
			log.Error("accept", "err", err)
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		default:
			return fmt.Errorf("accept: %w", err)
		}
		if serve := admit(nc); serve != nil {
			conns.Go(func() { serve(ctx) })
		}
	}
}
