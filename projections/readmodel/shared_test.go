package readmodel

import (
	"context"
	"errors"
	"math/rand/v2"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"chatsessions/domain"
	"chatsessions/domain/query"
)

// A clockedList is a list whose total says when it began to be read.
type clockedList struct {
	shared *sharedLists
	clock  atomic.Int64
	reads  atomic.Int64
}

func (l *clockedList) read(ctx context.Context) (query.Page, error) {
	l.reads.Add(1)
	page := query.Page{Total: new(l.clock.Add(1))}
	time.Sleep(slice)
	return page, ctx.Err()
}

func (l *clockedList) ask(ctx context.Context) (began int64, err error) {
	page, err := l.shared.list(ctx, query.Everything(50), l.read)
	if err != nil {
		return 0, err
	}
	return *page.Total, nil
}

// Every caller gets a page whose read began after the call, and few pages are read.
func TestASharedListIsNotOlderThanTheQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &clockedList{shared: newSharedLists()}
		var all sync.WaitGroup
		const clients, questions = 64, 100
		for range clients {
			all.Go(func() {
				for range questions {
					time.Sleep(rand.N(slice))
					ctx, cancel := context.WithTimeout(t.Context(), rand.N(20*slice))
					asked := l.clock.Add(1)
					began, err := l.ask(ctx)
					if err == nil && began <= asked {
						t.Errorf("asked at %d, and read at %d", asked, began)
					}
					if err != nil && !errors.Is(err, context.DeadlineExceeded) {
						t.Error(err)
					}
					cancel()
				}
			})
		}
		all.Wait()
		if n := l.reads.Load(); n > clients*questions/10 {
			t.Errorf("%d questions were read %d times", clients*questions, n)
		}
		if len(l.shared.asked) != 0 {
			t.Errorf("left behind: %v", l.shared.asked)
		}
	})
}

func TestTheOthersGetTheirListWhenTheOneWhoReadsItIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &clockedList{shared: newSharedLists()}
		var all sync.WaitGroup
		ask := func(patience time.Duration) {
			all.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				time.AfterFunc(patience, cancel)
				if _, err := l.ask(ctx); err != nil && patience > 3*slice {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		ask(slice / 2) // reads, and its client goes
		ask(slice / 2) // would read next, and does not wait for it
		ask(time.Minute)
		ask(time.Minute)
		all.Wait()
		if n := l.reads.Load(); n != 2 {
			t.Errorf("%d reads", n)
		}
		ask(slice / 2)
		ask(slice / 2) // nobody is left when it could be read
		all.Wait()
		ask(time.Minute)
		all.Wait()
		if n := l.reads.Load(); n != 4 || len(l.shared.asked) != 0 {
			t.Errorf("%d reads, left behind: %v", n, l.shared.asked)
		}
	})
}

func TestAListIsReadForAsLongAsSomebodyWaitsForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &clockedList{shared: newSharedLists()}
		var all sync.WaitGroup
		for _, patience := range []time.Duration{time.Minute, 3 * slice / 2, time.Minute} {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				if _, err := l.ask(ctx); err != nil && patience == time.Minute {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		all.Wait()
		short, cancel := context.WithTimeout(t.Context(), slice/2)
		defer cancel()
		if _, err := l.ask(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("alone, and out of time: %v", err)
		}
	})
}

func TestAPanicIsNoEmptyList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSharedLists()
		var all sync.WaitGroup
		var panics, refused atomic.Int64
		for n := range 4 { // the first reads alone, one of the others for all three
			all.Go(func() {
				defer func() {
					if recover() != nil {
						panics.Add(1)
					}
				}()
				_, err := s.list(t.Context(), query.Everything(1), func(context.Context) (query.Page, error) {
					time.Sleep(slice)
					if n > 0 {
						panic("as planned")
					}
					return query.Page{}, nil
				})
				if errors.Is(err, domain.ErrUnavailable) {
					refused.Add(1)
				}
			})
			synctest.Wait()
		}
		all.Wait()
		if panics.Load() != 1 || refused.Load() != 2 || len(s.asked) != 0 {
			t.Errorf("%d panics, %d refusals, left behind: %v", panics.Load(), refused.Load(), s.asked)
		}
	})
}

func TestOnlyTheSameQuestionIsShared(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		one, other := drawQuery(rt, 2), drawQuery(rt, 2)
		if same := textOf(one) == textOf(other); same != reflect.DeepEqual(one, other) {
			rt.Fatalf("%+v and %+v: %v", one, other, same)
		}
	})
	quoted := query.Everything(1)
	quoted.Filters = []query.Filter{{Field: "room", Values: []string{`a""b`}}}
	two := query.Everything(1)
	two.Filters = []query.Filter{{Field: "room", Values: []string{"a", "b"}}}
	if textOf(quoted) == textOf(two) {
		t.Error(textOf(two))
	}
}
