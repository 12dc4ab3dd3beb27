package live

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"strata/vdisk"
	"strata/venti"
)

// ThrowAway opens a disk that is what a snapshot is, or an image is now, or a
// stored disk (vdisk: and its score), and can be written to. Nothing of it is
// kept: Close removes it, and Open what a crash has left. Nothing is copied. Of an
// image that is no snapshot one is taken first.
//
// The disk is an image without a name, in a temporary directory of the file
// system, which no archive has.
func (c *Catalogue) ThrowAway(ctx context.Context, ref string) (*Disk, error) {
	d, err := c.throwAway(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("throw-away of %s: %w", ref, err)
	}
	return d, nil
}

func (c *Catalogue) throwAway(ctx context.Context, ref string) (*Disk, error) {
	_, score, err := venti.ParseTypedScore(ref)
	origin := ""
	if err != nil {
		s, err := c.Resolve(ctx, ref)
		if err != nil {
			return nil, err
		}
		name, _, _ := strings.Cut(ref, "@")
		score, origin = s.Score, top+"/"+name
	}
	src, err := vdisk.Open(ctx, c.store, score)
	if err != nil {
		return nil, err
	}
	im := newImage(c, fmt.Sprintf("%s%d", throwPrefix, c.throws.Add(1)))
	im.thrown, im.origin = true, origin
	d := &Disk{im: im, by: "who throws it away", writes: true}
	im.users, im.writers[d.by] = 1, 1
	c.mu.Lock()
	c.images[im.name] = im
	c.mu.Unlock()
	err = c.buildThrown(ctx, im, src)
	if err == nil {
		err = im.alone(ctx, im.load)
	}
	if err != nil {
		return nil, errors.Join(err, d.Close(ctx))
	}
	c.mu.Lock()
	im.start = im.begin(ctx)
	c.mu.Unlock()
	return d, nil
}

// buildThrown makes the directory of an image to be thrown away.
func (c *Catalogue) buildThrown(ctx context.Context, im *image, src *vdisk.Image) error {
	if err := c.host.tell(ctx, "create %s %s %s dT775", im.dir(), c.host.uid, c.host.uid); err != nil {
		return err
	}
	l := src.Layout()
	for i := range l.Regions {
		r := &l.Regions[i]
		if err := c.graftRegion(ctx, src, i, im.dir()+"/"+r.Name); err != nil {
			return fmt.Errorf("region %s: %w", r.Name, err)
		}
	}
	text, err := l.Encode()
	if err != nil {
		return err
	}
	return c.host.createFile(ctx, im.dir(), layoutFile, text)
}
