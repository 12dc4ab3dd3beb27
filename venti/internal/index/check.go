package index

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"unsafe"

	"strata/internal/disk"
	"strata/venti"
)

// A CheckConfig says what Check compares an index with. Only Source must be
// set.
type CheckConfig struct {
	Source Source // has every entry that ought to be there

	// Count is about how many entries Source has, and Memory how many bytes
	// may be used for them at a time; 0 means DefaultCheckMemory. As many times
	// as the one is larger than the other, Source is called.
	Count  int64
	Memory int64

	// Pending tells of an entry that it need not be in the index and the
	// filter yet, for its clump is not noted as indexed. None does if it is nil.
	Pending func(*Entry) bool

	Bloom Filter // if there is one
	Fix   bool   // put right what is wrong

	// Report, if not nil, is called for everything that is wrong, in the order
	// of the buckets.
	Report func(Difference)
}

// DefaultCheckMemory is the Memory of a CheckConfig's zero value.
const DefaultCheckMemory = 256 << 20

// A Filter is what Check wants of a Bloom filter.
type Filter interface {
	Has(venti.Score) bool
	Add(venti.Score)
}

// A Difference is one thing that Check found wrong.
type Difference struct {
	Kind    DifferenceKind
	Entry   Entry // not for Damaged
	Section *Section
	Offset  int64 // of the bucket in Section
	Err     error // of Damaged
}

// DifferenceKind says what is wrong.
type DifferenceKind uint8

const (
	Extra        DifferenceKind = iota // an entry is there and ought not to be
	Missing                            // an entry ought to be there and is not
	Damaged                            // a bucket cannot be read as one; what ought to be in it is Missing
	BloomMissing                       // a score is not in the filter
)

// A CheckResult counts what Check found.
type CheckResult struct {
	Entries int64 // that ought to be there, each key once
	Pending int64 // of those that need not be there yet, those that are not
	Full    int64 // entries that ought to be there and have no room in their bucket

	Extra, Missing, Damaged, BloomMissing int64
}

// Wrong tells whether anything was.
func (r *CheckResult) Wrong() bool {
	return r.Extra+r.Missing+r.Damaged+r.BloomMissing > 0
}

// Check compares the index, and the filter if there is one, with the entries
// that ought to be there. With Fix it writes each bucket in which something
// is wrong anew, adds what the filter misses, and has the sections on stable
// storage when it returns; the filter is the caller's to save. The error is
// one of reading or writing; what is wrong is no error.
//
// Of several clumps with one key the index may have any.
func (ix *Index) Check(ctx context.Context, c CheckConfig) (CheckResult, error) {
	ix.updating.Lock()
	defer ix.updating.Unlock()
	memory := c.Memory
	if memory <= 0 {
		memory = DefaultCheckMemory
	}
	atOnce := max(1000, memory/int64(unsafe.Sizeof(Entry{})))
	passes := uint64(max(1, (c.Count+atOnce-1)/atOnce))
	step := uint32(max(1, (uint64(ix.Buckets)+passes-1)/passes))
	k := checker{ix: ix, CheckConfig: c, want: forPass(c.Count, atOnce)}
	for lo := uint32(0); lo < ix.Buckets; {
		hi := uint32(min(uint64(lo)+uint64(step), uint64(ix.Buckets)))
		if err := k.pass(ctx, lo, hi); err != nil {
			return k.result, fmt.Errorf("index %s: check: %w", ix.Name, err)
		}
		lo = hi
	}
	return k.result, nil
}

// forPass returns room for the entries of a pass, so that there is none for their
// copies: some more than the mean, for passes are not all alike.
func forPass(count, atOnce int64) []Entry {
	return make([]Entry, 0, min(count, atOnce)/32*33+1000)
}

// A checker is a Check under way.
type checker struct {
	ix *Index
	CheckConfig
	result CheckResult
	want   []Entry // of the pass
	have   []Entry // of a bucket and those behind it in the overflow
	block  []byte  // of one of those
}

// pass checks the buckets in [lo,hi).
func (k *checker) pass(ctx context.Context, lo, hi uint32) error {
	want := k.want[:0]
	for e, err := range k.Source(ctx) {
		if err != nil {
			return err
		}
		if b := k.ix.Bucket(e.Score); b >= lo && b < hi {
			want = append(want, e)
		}
	}
	k.want = want
	Sort(want)
	for lo < hi {
		s := k.ix.section(lo)
		w := &runWriter{s: s}
		for stop := min(hi, s.Stop); lo < stop; {
			if err := ctx.Err(); err != nil {
				return err
			}
			next := min(stop, lo+uint32(max(1, maxRun/s.BlockSize)))
			if err := w.read(lo, next-1); err != nil {
				return err
			}
			for ; lo < next; lo++ {
				n := 0
				for n < len(want) && k.ix.Bucket(want[n].Score) == lo {
					n++
				}
				if err := k.bucket(w, lo, want[:n]); err != nil {
					return err
				}
				want = want[n:]
			}
			if err := w.write(); err != nil {
				return err
			}
		}
		if err := w.sync(); err != nil {
			return err
		}
	}
	if k.Fix && k.ix.over != nil {
		return k.ix.over.levels[0].sync()
	}
	return nil
}

// bucket checks one bucket of the run that w has, in which the entries of
// want, which are sorted, ought to be.
func (k *checker) bucket(w *runWriter, bucket uint32, want []Entry) error {
	var err error
	wrong := false
	report := func(kind DifferenceKind, count *int64, e Entry) {
		*count++
		if kind != BloomMissing {
			wrong = true
		}
		if k.Report != nil {
			k.Report(Difference{Kind: kind, Entry: e, Section: w.s, Offset: w.s.offset(bucket), Err: err})
		}
	}
	k.have = k.have[:0]
	damaged := false
	block := w.block(bucket)
	for i, s := range k.ix.chain(bucket) {
		if i > 0 {
			if k.block == nil {
				k.block = make([]byte, s.BlockSize)
			}
			block = k.block
			if err := disk.ReadFull(s.file, block, s.offset(bucket)); err != nil {
				return s.bucketError(bucket, fmt.Errorf("read: %w", err))
			}
		}
		n := len(k.have)
		if k.have, err = s.unpackBucket(k.have, block); err != nil {
			k.have, damaged = k.have[:n], true
			report(Damaged, &k.result.Damaged, Entry{})
		} else if len(k.have)-n < s.Capacity() {
			break
		}
	}
	have := k.have
	slices.SortStableFunc(have, func(e, f Entry) int { return e.Compare(&f) })
	var right []Entry // what the bucket is to hold
	for len(want) > 0 || len(have) > 0 {
		// The next key, and all that has it.
		key := &Entry{}
		if len(have) == 0 || len(want) > 0 && want[0].Compare(&have[0]) < 0 {
			key = &want[0]
		} else {
			key = &have[0]
		}
		wanted, had := 0, 0
		for wanted < len(want) && want[wanted].Compare(key) == 0 {
			wanted++
		}
		for had < len(have) && have[had].Compare(key) == 0 {
			had++
		}
		found := -1 // the first of the had that is wanted
		for i, e := range have[:had] {
			if found < 0 && slices.Contains(want[:wanted], e) {
				found = i
			} else {
				report(Extra, &k.result.Extra, e)
			}
		}
		if wanted > 0 {
			e := want[wanted-1]
			pending := k.Pending != nil && !slices.ContainsFunc(want[:wanted], func(e Entry) bool { return !k.Pending(&e) })
			k.result.Entries++
			switch {
			case found >= 0:
				e = have[found]
			case pending && had == 0 && !damaged:
				k.result.Pending++
			default:
				report(Missing, &k.result.Missing, e)
			}
			right = append(right, e)
			if k.Bloom != nil && !k.Bloom.Has(e.Score) && (found >= 0 || !pending) {
				report(BloomMissing, &k.result.BloomMissing, e)
				if k.Fix {
					k.Bloom.Add(e.Score)
				}
			}
		}
		want, have = want[wanted:], have[had:]
	}
	slices.SortFunc(right, func(e, f Entry) int { return cmp.Compare(e.Addr, f.Addr) })
	parts, rest := cut(right, 1+len(k.ix.levels()), w.s.Capacity())
	k.result.Full += int64(len(rest))
	if !wrong || !k.Fix {
		return nil
	}
	w.replace(bucket, sortedCopy(parts[0]))
	return k.ix.replaceOverflow(bucket, parts[1:])
}
