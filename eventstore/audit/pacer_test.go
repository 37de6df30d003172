package audit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"chatsessions/domain"
	"chatsessions/eventstore"
	"chatsessions/eventstore/embedded"

	"github.com/google/uuid"
)

// TestAReaderIsHeldUpWhileSomebodyWrites, and only then.
func TestAReaderIsHeldUpWhileSomebodyWrites(t *testing.T) {
	e, err := embedded.Start(t.Context(), embedded.Options{
		StoreDir: t.TempDir(), User: "u", Password: "p", Sync: func(string, func() error) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Shutdown)
	nc, err := e.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	l, err := eventstore.Open(t.Context(), nc, eventstore.Options{OnlyWriter: true, Durability: e})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	p := NewPacer(l)
	// reads is how many events a second can be read for a time.
	reads := func(d time.Duration) float64 {
		began, n := time.Now(), 0
		for time.Since(began) < d {
			if err := p.Wait(t.Context(), batchSize); err != nil {
				t.Fatal(err)
			}
			n += batchSize
		}
		return float64(n) / time.Since(began).Seconds()
	}
	// becomes returns when the pacer has seen whether somebody writes.
	becomes := func(busy bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); p.isBusy(t.Context()) != busy; time.Sleep(paceEvery / 10) {
			if time.Now().After(deadline) {
				t.Fatalf("it does not see that somebody writes, or that nobody does: %v", busy)
			}
		}
	}
	becomes(false)
	if rate := reads(time.Second); rate < 100*pacedRate {
		t.Errorf("%.0f events a second while nobody writes", rate)
	}
	ctx, stop := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	writing.Go(func() {
		id := uuid.NewString()
		for i := 0; ctx.Err() == nil; i++ {
			_, err := l.Transact(ctx, domain.Request{SessionID: id, Actor: "pat"}, func(s domain.Session) ([]domain.Event, error) {
				pat := domain.Caller{Account: "pat"}
				if !s.Exists() {
					return domain.Decide(s, domain.Create{ID: id, By: pat, Now: 1})
				}
				return domain.Decide(s, domain.Change{By: pat, Now: 2, Values: domain.Values{Room: new(fmt.Sprint(i))}})
			})
			if err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
		}
	})
	becomes(true)
	if rate := reads(time.Second); rate > 1.2*pacedRate {
		t.Errorf("%.0f events a second while somebody writes", rate)
	}
	stop()
	writing.Wait()
	becomes(false)
	if rate := reads(time.Second / 2); rate < 100*pacedRate {
		t.Errorf("%.0f events a second after somebody wrote", rate)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := p.Wait(ended, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
