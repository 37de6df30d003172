package readmodel

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"chatsessions/domain"
	"chatsessions/projections"
	"chatsessions/projections/logtest"
)

const slice = 10 * time.Millisecond // how long a trip takes in these tests

func work() error { time.Sleep(slice); return nil }

func TestWhileWritesAreInFlightListsTakeATenthOfTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(func() int { return 1 })
		began := time.Now()
		for range 11 {
			logtest.MustRun(t, p.inTurn(t.Context(), work))
		}
		if took := time.Since(began); took != 11*slice+10*restFor*slice {
			t.Fatalf("took %v", took)
		}
	})
}

func TestWithoutWritesListsDoNotRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(nil)
		began := time.Now()
		for range 10 {
			logtest.MustRun(t, p.inTurn(t.Context(), work))
		}
		if took := time.Since(began); took != 10*slice {
			t.Fatalf("took %v", took)
		}
	})
}

func TestListsGoOnSoonAfterTheLastWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		writes := 1
		p := newPacer(func() int { return writes })
		logtest.MustRun(t, p.inTurn(t.Context(), work))
		writes = 0
		began := time.Now()
		logtest.MustRun(t, p.inTurn(t.Context(), work))
		if waited := time.Since(began) - slice; waited < calmAfter-slice || waited > calmAfter+lookEvery {
			t.Fatalf("waited %v", waited)
		}
	})
}

func TestATripThatWasHeldUpDoesNotHoldUpAllOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(func() int { return 1 })
		logtest.MustRun(t, p.inTurn(t.Context(), func() error { time.Sleep(time.Second); return nil }))
		began := time.Now()
		logtest.MustRun(t, p.inTurn(t.Context(), work))
		if waited := time.Since(began) - slice; waited != maxRest {
			t.Fatalf("waited %v", waited)
		}
	})
}

func TestOneAtATimePassesInTheOrderOfArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(nil)
		var all sync.WaitGroup
		var order []int
		passing := 0
		for n := range 20 {
			all.Go(func() {
				logtest.MustRun(t, p.inTurn(t.Context(), func() error {
					if passing++; passing > 1 {
						t.Error("two at once")
					}
					time.Sleep(slice)
					passing--
					order = append(order, n)
					return nil
				}))
			})
			synctest.Wait() // until it waits
		}
		all.Wait()
		for n, got := range order {
			if got != n {
				t.Fatalf("the order is %v", order)
			}
		}
	})
}

func TestWhoWouldHaveToWaitForTooLongIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(func() int { return 1 })
		logtest.MustRun(t, p.inTurn(t.Context(), work))
		began := time.Now()
		short, cancel := context.WithTimeout(t.Context(), slice)
		defer cancel()
		if err := p.inTurn(short, work); !errors.Is(err, domain.ErrTooExpensive) || time.Since(began) > 0 {
			t.Fatalf("behind a closed gate: %v, after %v", err, time.Since(began))
		}
		leave, err := acquire(t.Context(), p.turn)
		logtest.MustRun(t, err)
		if err := p.inTurn(short, work); !errors.Is(err, domain.ErrTooExpensive) || time.Since(began) != slice {
			t.Fatalf("in the queue: %v, after %v", err, time.Since(began))
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.inTurn(gone, work); !errors.Is(err, context.Canceled) {
			t.Fatalf("gone: %v", err)
		}
		leave()
		if err := p.inTurn(t.Context(), func() error { return logtest.ErrDown }); !errors.Is(err, logtest.ErrDown) {
			t.Fatalf("got %v", err)
		}
		logtest.MustRun(t, p.inTurn(t.Context(), work))
	})
}

func TestOnlySoManyLongPagesAreReadAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(nil)
		var leave func()
		for range longPages {
			var err error
			leave, err = acquire(t.Context(), p.seats)
			logtest.MustRun(t, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := acquire(ctx, p.seats); !errors.Is(err, domain.ErrTooExpensive) {
			t.Fatalf("got %v", err)
		}
		leave()
		_, err := acquire(t.Context(), p.seats)
		logtest.MustRun(t, err)
	})
}

func TestAListGetsAsMuchOfTheTimeAsAWrite(t *testing.T) {
	const trip, during = time.Millisecond, 5 * time.Second
	for _, c := range []struct{ writes, lists, perSecond int }{
		{0, 2, 2000},  // as many as can
		{1, 2, 2000},  // two of three turns, which is all that two lists can use
		{8, 2, 250},   // so 8 writes have 1000 turns
		{64, 2, 100},  // not less
		{64, 16, 250}, // so 64 writes have 1000 turns
		{64, 64, 1000},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPacer(func() int { return c.writes })
			logtest.MustRun(t, p.first(t.Context(), func() error { time.Sleep(trip); return nil }))
			began := time.Now()
			var trips atomic.Int64
			var all sync.WaitGroup
			for range c.lists {
				all.Go(func() {
					for time.Since(began) < during {
						logtest.MustRun(t, p.first(t.Context(), func() error { time.Sleep(trip); return nil }))
						trips.Add(1)
					}
				})
			}
			all.Wait()
			if n := int(trips.Load()) / 5; n < c.perSecond*9/10 || n > c.perSecond*11/10 {
				t.Errorf("%d lists beside %d writes: %d trips in a second, want %d", c.lists, c.writes, n, c.perSecond)
			}
		})
	}
}

func TestAFirstTripThatWouldBeginTooLateIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(func() int { return 1000 })
		for range 3 {
			logtest.MustRun(t, p.first(t.Context(), work))
		}
		ctx, cancel := context.WithTimeout(t.Context(), maxApart/2)
		defer cancel()
		began := time.Now()
		var all sync.WaitGroup
		var refused atomic.Int64
		for range 4 {
			all.Go(func() {
				if err := p.first(ctx, work); errors.Is(err, domain.ErrBusy) && time.Since(began) <= maxApart/2 {
					refused.Add(1)
				} else {
					logtest.MustRun(t, err)
				}
			})
		}
		all.Wait()
		if n := refused.Load(); n == 0 || n == 4 {
			t.Fatalf("%d of 4 were refused", n)
		}
		if n := p.short.Load(); n != 0 {
			t.Fatalf("%d trips are left", n)
		}
	})
}

// All at once, beside as many writes as there are lists: each gets its share in time.
func TestAThousandFirstTripsAtOnceBeginBeforeTheirDeadline(t *testing.T) {
	const trip, lists = time.Millisecond, 1000
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(func() int { return lists })
		f := func() error { time.Sleep(trip); return nil }
		logtest.MustRun(t, p.first(t.Context(), f))
		ctx, cancel := context.WithTimeout(t.Context(), maxListTime)
		defer cancel()
		var all sync.WaitGroup
		began := time.Now()
		for range lists {
			all.Go(func() { logtest.MustRun(t, p.first(ctx, f)) })
		}
		all.Wait()
		if took := time.Since(began); took < lists*trip*9/10 {
			t.Fatalf("took %v: the writes got less", took)
		}
	})
}

// More lists come than can begin: those that do are answered, however long that goes on.
func TestWhoBeginsLateHasTimeLeft(t *testing.T) {
	const most, each, during = int(time.Second / maxApart), 2, 20 // a second
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(func() int { return 1000 })
		logtest.MustRun(t, p.first(t.Context(), work))
		var found, refused atomic.Int64
		var all sync.WaitGroup
		for range during * each * most {
			time.Sleep(time.Second / time.Duration(each*most))
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), maxListTime)
				defer cancel()
				err := p.first(ctx, func() error {
					if !projections.Pause(ctx, slice) {
						return ctx.Err()
					}
					return nil
				})
				if errors.Is(err, domain.ErrBusy) {
					refused.Add(1)
					return
				}
				logtest.MustRun(t, err)
				found.Add(1)
			})
		}
		all.Wait()
		if n := int(found.Load()); n < during*most*9/10 || refused.Load() == 0 {
			t.Fatalf("%d were found and %d refused, of %d that could be found", n, refused.Load(), during*most)
		}
	})
}

func TestWhoDidNotHaveToWaitDoesNotHoldUpThoseBesideTheNextWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var writes atomic.Int64
		writes.Store(1000)
		p := newPacer(func() int { return int(writes.Load()) })
		logtest.MustRun(t, p.first(t.Context(), work))
		var all sync.WaitGroup
		for range 500 {
			all.Go(func() { logtest.MustRun(t, p.first(t.Context(), work)) })
		}
		time.Sleep(4 * maxApart) // a round of all of them has begun
		writes.Store(0)
		all.Wait()
		writes.Store(1)
		began := time.Now()
		logtest.MustRun(t, p.first(t.Context(), work))
		if waited := time.Since(began) - slice; waited > maxApart {
			t.Fatalf("waited %v", waited)
		}
	})
}
