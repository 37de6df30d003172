package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
)

// memory measures what the read model of many finished sessions takes in Redis, and
// for what.
func (b *bench) memory(ctx context.Context) error {
	l, err := b.needLarge(ctx)
	if err != nil {
		return err
	}
	progress("memory: asking Redis for the size of each key")
	kinds, err := l.redis.usedByKind(ctx)
	if err != nil {
		return err
	}
	perSession := func(measured string, bytes float64) row {
		return row{Measured: measured, Service: bytes / float64(l.sessions), Unit: "byte"}
	}
	total := l.after - l.before
	b.rows = append(b.rows, perSession(fmt.Sprintf("Redis memory per session, %d finished", l.sessions), total).aims("≤ 2048"))
	rest := total
	for _, kind := range slices.SortedFunc(maps.Keys(kinds), func(a, b string) int { return cmp.Compare(kinds[b], kinds[a]) }) {
		b.rows = append(b.rows, perSession("  of it: "+kind, kinds[kind]))
		rest -= kinds[kind]
	}
	b.rows = append(b.rows, perSession("  of it: what finds the keys, and the rest", rest))
	return nil
}
