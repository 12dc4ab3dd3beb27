package ventitest_test

import (
	"errors"
	"testing"

	"strata/venti"
	"strata/venti/ventitest"
)

func TestMemory(t *testing.T) {
	ventitest.TestStore(t, func(*testing.T) venti.Store { return ventitest.NewMemory() })
}

func TestFaultyThatDoesNotFail(t *testing.T) {
	ventitest.TestStore(t, func(*testing.T) venti.Store {
		return ventitest.NewFaulty(ventitest.NewMemory(), func(ventitest.Op) error { return nil })
	})
}

func TestFaulty(t *testing.T) {
	const ops = 4
	for n := range int64(ops) {
		for name, fail := range map[string]func(ventitest.Op) error{"nth": ventitest.FailNth(n), "from": ventitest.FailFrom(n)} {
			st := ventitest.NewFaulty(ventitest.NewMemory(), fail)
			s, err0 := st.WriteBlock(t.Context(), venti.DataType, []byte("x"))
			_, err1 := st.ReadBlock(t.Context(), venti.EmptyScore, venti.DataType, nil)
			_, err2 := st.HasBlock(t.Context(), s, venti.DataType)
			err3 := st.Sync(t.Context())
			for i, err := range []error{err0, err1, err2, err3} {
				want := int64(i) == n || name == "from" && int64(i) > n
				if got := errors.Is(err, ventitest.ErrFault); got != want {
					t.Errorf("%s %d: operation %d: %v", name, n, i, err)
				}
			}
			if st.Ops() != ops {
				t.Errorf("%d operations, want %d", st.Ops(), ops)
			}
		}
	}
}
