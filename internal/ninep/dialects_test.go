package ninep_test

import (
	"fmt"
	"testing"

	"strata/internal/ninep"
	"strata/internal/ninep/ninetest"
)

// TestDialects does the same at random through each dialect.
func TestDialects(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			newFS := func(*testing.T) ninep.FS { return newMemFS() }
			ninetest.TestDialects(t, newFS, ninetest.TreeConfig{User: "glenda", Write: "/"}, seed, 500)
		})
	}
}
