package arena

import (
	"context"
	"iter"
)

// A Placed is a directory entry, and where its clump is.
type Placed struct {
	Pos
	Info ClumpInfo
}

// Infos yields the directory entries of the first n clumps with their places,
// which are the sums of the sizes before. An error ends it.
func (a *Arena) Infos(ctx context.Context, n int) iter.Seq2[Placed, error] {
	return func(yield func(Placed, error) bool) {
		infos := make([]ClumpInfo, min(n, 8192))
		var at Pos
		for at.Clump < n {
			infos = infos[:min(len(infos), n-at.Clump)]
			err := ctx.Err()
			if err == nil {
				err = a.ReadInfos(infos, at.Clump)
			}
			if err != nil {
				yield(Placed{Pos: at}, err)
				return
			}
			for i := range infos {
				if !yield(Placed{at, infos[i]}, nil) {
					return
				}
				at.Off += infos[i].LogSize()
				at.Clump++
			}
		}
	}
}
