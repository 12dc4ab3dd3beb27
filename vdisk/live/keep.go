package live

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"strata/vdisk"
)

// Rules say which snapshots are kept: of each kind of period the last so many
// that have one, of each of these the last snapshot. Those with tags, and the
// last of all, are kept in any case.
type Rules struct {
	Last, Hourly, Daily, Weekly, Monthly, Yearly int
}

// ParseRules reads rules: "7 daily 4 weekly 12 monthly", in any order.
func ParseRules(words []string) (r Rules, err error) {
	if len(words) == 0 || len(words)%2 != 0 {
		return r, invalid("rules are like 7 daily 4 weekly 12 monthly, not %q", strings.Join(words, " "))
	}
	for i := 0; i < len(words); i += 2 {
		n, err := strconv.Atoi(words[i])
		if err != nil || n < 0 {
			return r, invalid("bad number %q in a rule", words[i])
		}
		p, ok := map[string]*int{
			"last": &r.Last, "hourly": &r.Hourly, "daily": &r.Daily, "weekly": &r.Weekly, "monthly": &r.Monthly, "yearly": &r.Yearly,
		}[words[i+1]]
		if !ok {
			return r, invalid("no rule %q: there are last, hourly, daily, weekly, monthly and yearly", words[i+1])
		}
		*p = n
	}
	return r, nil
}

// keep tells which of a history's snapshots are kept.
func (r Rules) keep(list []Snapshot) []bool {
	kept := make([]bool, len(list))
	newest := make([]int, len(list)) // the newest first
	for i := range list {
		newest[i] = len(list) - 1 - i
		kept[i] = list[i].Tag != ""
	}
	slices.SortStableFunc(newest, func(a, b int) int { return list[b].Time.Compare(list[a].Time) })
	if len(newest) > 0 {
		kept[newest[0]] = true
	}
	for _, rule := range []struct {
		n      int
		period func(t time.Time) string
	}{
		{r.Hourly, func(t time.Time) string { return t.Format("2006-01-02 15") }},
		{r.Daily, func(t time.Time) string { return t.Format(time.DateOnly) }},
		{r.Weekly, func(t time.Time) string {
			y, w := t.ISOWeek()
			return fmt.Sprint(y, " ", w)
		}},
		{r.Monthly, func(t time.Time) string { return t.Format("2006-01") }},
		{r.Yearly, func(t time.Time) string { return t.Format("2006") }},
	} {
		left, last := rule.n, ""
		for _, i := range newest {
			p := rule.period(list[i].Time.Local())
			if left == 0 {
				break
			}
			if p != last {
				kept[i], last = true, p
				left--
			}
		}
	}
	for n, i := range newest {
		kept[i] = kept[i] || n < r.Last
	}
	return kept
}

// A Gone is a snapshot that rules do not keep.
type Gone struct {
	Snapshot

	// Frees is how many bytes of blocks only it has, and those that go with it:
	// at most, since other places and images may have some of them.
	Frees int64
}

// Keep says which snapshots of an image rules would let go, and lets them go if
// it is to: they are in its history no longer. The archive keeps what it has.
// Space comes back with a copy of what is kept to a new store.
func (c *Catalogue) Keep(ctx context.Context, name string, r Rules, letGo bool) ([]Gone, error) {
	list, err := c.Log(ctx, name)
	if err != nil {
		return nil, err
	}
	gone, err := c.gone(ctx, list, r.keep(list))
	if err != nil {
		return nil, fmt.Errorf("keep %s: %w", name, err)
	}
	if !letGo || len(gone) == 0 {
		return gone, nil
	}
	return gone, c.with(ctx, name, func(ctx context.Context, im *image) error {
		if err := im.readHistory(ctx); err != nil {
			return err
		}
		var lines []byte
		for _, g := range gone {
			lines = fmt.Appendf(lines, "gone %s\n", g.Name)
		}
		if err := im.record(ctx, lines); err != nil {
			return err
		}
		im.known = false // so that it is read as it is
		return c.host.sync(ctx)
	})
}

// gone says what goes with the snapshots that are not kept. Each is compared
// with those beside it that stay, and with the one before it that goes too.
func (c *Catalogue) gone(ctx context.Context, list []Snapshot, kept []bool) ([]Gone, error) {
	open := func(i int) (*vdisk.Image, error) { return vdisk.Open(ctx, c.store, list[i].Score) }
	var gone []Gone
	before := -1 // the last that stays
	for i := range list {
		if kept[i] {
			before = i
			continue
		}
		im, err := open(i)
		if err != nil {
			return nil, err
		}
		beside := map[int]bool{before: true, i - 1: true}
		if after := slices.Index(kept[i:], true); after > 0 {
			beside[i+after] = true
		}
		delete(beside, -1)
		var others []*vdisk.Image
		for j := range beside {
			o, err := open(j)
			if err != nil {
				return nil, err
			}
			others = append(others, o)
		}
		n, err := vdisk.NewBytes(ctx, im, others)
		if err != nil {
			return nil, err
		}
		gone = append(gone, Gone{list[i], n})
	}
	return gone, nil
}
