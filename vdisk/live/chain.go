package live

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"strata/vdisk"
	"strata/venti"
)

// A snapshot's score is that of an import of the same disk, so its root names no
// other. For who wants all the history of an image by one score there are roots
// besides, one for each snapshot that is kept: of the same disk, but named by the
// snapshot's line of the history,
//
//	snap 2026/1127.1 2026-11-27T16:20:11Z asked before-upgrade - settled
//
// without a score, and with the one before as prev, which venti/copy follows.
// They are made when they are asked for; the same history always has the same.

// chainPrefix is what the names of such roots begin with.
const chainPrefix = "snap "

// chainName returns the name of a snapshot's root in a chain. The archive that a
// nightly one is in is of its file system only.
func (s *Snapshot) chainName() string {
	t := *s
	t.From = ""
	f := strings.Fields(string(t.line()))
	return strings.Join(append(f[:3], f[4:]...), " ")
}

// parseChainName returns the snapshot of such a name, without its score. ok is
// false for any other name.
func parseChainName(name string) (s Snapshot, ok bool) {
	f := strings.Fields(name)
	if !strings.HasPrefix(name, chainPrefix) || len(f) != 7 {
		return s, false
	}
	line := strings.Join(append(append(f[:3:3], vdisk.RootType+":"+venti.Score{}.String()), f[3:]...), " ")
	_, list, _, err := parseHistory(line)
	if err != nil || len(list) != 1 {
		return s, false
	}
	s = list[0]
	_, ok = parseArchive(s.Name)
	return s, ok && (s.Tag == "" || isElement(s.Tag)) && (s.Kind == Nightly || s.Kind == Asked || s.Kind == Before)
}

// readRoot reads the root of an image.
func (c *Catalogue) readRoot(ctx context.Context, s venti.Score) (venti.Root, error) {
	var buf [venti.RootSize]byte
	n, err := c.store.ReadBlock(ctx, s, venti.RootType, buf[:])
	if err != nil {
		return venti.Root{}, fmt.Errorf("root %v: %w", s, err)
	}
	return venti.UnpackRoot(buf[:n])
}

func (c *Catalogue) writeRoot(ctx context.Context, r venti.Root) (venti.Score, error) {
	b, err := r.Pack(nil)
	if err != nil {
		return venti.Score{}, err
	}
	return c.store.WriteBlock(ctx, venti.RootType, b)
}

// Chain returns the score that names all the history of an image, as it is kept:
// that of the last snapshot's root in the chain. It is the zero score if there
// are no snapshots.
func (c *Catalogue) Chain(ctx context.Context, name string) (head venti.Score, err error) {
	list, err := c.Log(ctx, name)
	for i := 0; i < len(list) && err == nil; i++ {
		var r venti.Root
		if r, err = c.readRoot(ctx, list[i].Score); err == nil {
			r.Name, r.Prev = list[i].chainName(), head
			head, err = c.writeRoot(ctx, r)
		}
	}
	if err == nil {
		err = c.store.Sync(ctx)
	}
	if err != nil {
		return head, fmt.Errorf("chain of %s: %w", name, err)
	}
	return head, nil
}

// Unchain returns the history that a chain is of, the oldest first. It is empty
// for an image that is in none.
func (c *Catalogue) Unchain(ctx context.Context, head venti.Score) ([]Snapshot, error) {
	return c.unchain(ctx, head, func(r venti.Root) (venti.Score, error) {
		b, err := r.Pack(nil)
		return venti.ScoreOf(b), err
	})
}

// unchain is Unchain; own returns the score of a snapshot's own root.
func (c *Catalogue) unchain(ctx context.Context, head venti.Score, own func(r venti.Root) (venti.Score, error)) (list []Snapshot, err error) {
	for !head.IsZero() {
		r, err := c.readRoot(ctx, head)
		if err != nil {
			return nil, fmt.Errorf("chain: %w", err)
		}
		s, ok := parseChainName(r.Name)
		if !ok || r.Type != vdisk.RootType {
			break
		}
		head = r.Prev
		r.Name, r.Prev = "", venti.Score{}
		if s.Score, err = own(r); err != nil {
			return nil, fmt.Errorf("chain: %w", err)
		}
		list = append(list, s)
	}
	slices.Reverse(list)
	return list, nil
}
