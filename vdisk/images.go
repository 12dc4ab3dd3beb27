package vdisk

import (
	"container/list"
	"context"
	"errors"
	"sync"

	"strata/venti"
)

// images keeps the images used last open, so that walking to one again costs
// nothing. An image that it lets go of is good as long as somebody uses it.
type images struct {
	br   venti.BlockReader
	keep int

	mu    sync.Mutex // guards the fields below; never held while br is asked
	known map[venti.Score]*list.Element
	order *list.List // of *openImage; the one used last in front
}

// An openImage is an image that is open or being opened.
type openImage struct {
	score venti.Score
	done  chan struct{} // closed when im and err are set
	im    *Image
	err   error
}

func newImages(br venti.BlockReader, keep int) *images {
	return &images{br: br, keep: keep, known: make(map[venti.Score]*list.Element), order: list.New()}
}

// open returns the image with the given score. Callers that want the same one
// share the work. Failures are not kept.
func (s *images) open(ctx context.Context, score venti.Score) (*Image, error) {
	for {
		o, mine := s.enter(score)
		if mine {
			o.im, o.err = Open(ctx, s.br, score)
			if o.err != nil {
				s.forget(o)
			}
			close(o.done)
			return o.im, o.err
		}
		select {
		case <-o.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if o.err == nil || !isContextError(o.err) {
			return o.im, o.err
		}
		// The one who opened it has gone away.
	}
}

// enter returns the place of an image; mine tells that it is new and the
// caller has to open it.
func (s *images) enter(score venti.Score) (o *openImage, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if el := s.known[score]; el != nil {
		s.order.MoveToFront(el)
		return el.Value.(*openImage), false
	}
	o = &openImage{score: score, done: make(chan struct{})}
	s.known[score] = s.order.PushFront(o)
	for s.order.Len() > s.keep {
		el := s.order.Back()
		delete(s.known, el.Value.(*openImage).score)
		s.order.Remove(el)
	}
	return o, true
}

func (s *images) forget(o *openImage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if el := s.known[o.score]; el != nil && el.Value.(*openImage) == o {
		delete(s.known, o.score)
		s.order.Remove(el)
	}
}

// opened lists the images that are open, the one used last first.
func (s *images) opened() []*Image {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*Image
	for el := s.order.Front(); el != nil; el = el.Next() {
		o := el.Value.(*openImage)
		select {
		case <-o.done:
			list = append(list, o.im)
		default:
		}
	}
	return list
}

func isContextError(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
