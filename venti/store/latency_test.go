package store

import (
	"math"
	"testing"
	"time"
)

func TestLatencyBuckets(t *testing.T) {
	for i := range LatencyBuckets - 1 {
		b := LatencyBound(i)
		if got := latencyBucket(b); got != i {
			t.Errorf("%v is in bucket %d, want %d", b, got, i)
		}
		if got := latencyBucket(b + 1); got != i+1 {
			t.Errorf("%v and 1 ns is in bucket %d, want %d", b, got, i+1)
		}
		if i > 0 && LatencyBound(i-1) >= b {
			t.Errorf("bound %d is %v, and %d is %v", i-1, LatencyBound(i-1), i, b)
		}
	}
	for _, d := range []time.Duration{math.MinInt64, -1, 0, 1} {
		if got := latencyBucket(d); got != 0 {
			t.Errorf("%v is in bucket %d, want 0", d, got)
		}
	}
	if got := latencyBucket(math.MaxInt64); got != LatencyBuckets-1 {
		t.Errorf("the longest is in bucket %d, want %d", got, LatencyBuckets-1)
	}
}

func TestQuantile(t *testing.T) {
	var l Latency
	if got := l.Quantile(0.5); got != 0 {
		t.Errorf("median of nothing is %v", got)
	}
	for i := range 1000 {
		l.Counts[latencyBucket(time.Duration(i+1)*time.Microsecond)]++
	}
	for _, q := range []float64{0.01, 0.5, 0.9, 0.99, 1} {
		want := q * float64(time.Millisecond)
		if got := float64(l.Quantile(q)); math.Abs(got-want) > want/10 {
			t.Errorf("quantile %v is %v, want about %v", q, time.Duration(got), time.Duration(want))
		}
	}
	before := l
	l.Counts[3] += 2
	l.Sum += time.Second
	if d := l.Since(&before); d.Count() != 2 || d.Counts[3] != 2 || d.Sum != time.Second {
		t.Errorf("difference is %+v", d)
	}
}
