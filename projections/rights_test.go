package projections

import (
	"context"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"chatsessions/domain"
	"chatsessions/domain/query"
	"chatsessions/projections/redistest"
)

// The rights in deploy/redis/users.acl are enough for everything that this package does.
func TestTheServiceHasTheRightsThatItNeeds(t *testing.T) {
	server := redistest.Start(t, redistest.Config{ACL: true})
	log := newFakeLog("log")
	r := newRig(t, connect(t, server), log)
	rapid.Check(t, func(rt *rapid.T) {
		log.append(histories(rt)...)
		r.caughtUp()
		for range 3 {
			checkList(rt, r.ReadModel, log.newest(), drawQuery(rt, 3))
		}
	})
	for i := range maxQueries + 1 {
		text := fmt.Sprint("query ", i)
		digest, err := r.SaveQuery(t.Context(), "alice", text)
		mustRun(t, err)
		if got, err := r.LoadQuery(t.Context(), "alice", digest); err != nil || got != text {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	r.projector.end()
	other := newFakeLog("other")
	other.append(session(1, 1))
	r = newRig(t, r.rdb, other) // all is built anew
	r.caughtUp()
	checkList(t, r.ReadModel, other.newest(), query.Everything(1000))

	mustRun(t, r.rdb.Del(t.Context(), r.serving().document(id(1))).Err()) // something to find
	if done, err := Rebuild(t.Context(), r.rdb, other, RebuildOptions{}); err != nil || done.Differences == 0 {
		t.Fatalf("rebuilt %+v, %v", done, err)
	}
	other.recordUnreadable(1)
	r.caughtUp()
	mustRun(t, EachParked(t.Context(), r.rdb, 1, func(p Parked) error {
		found, err := FindParked(t.Context(), r.rdb, 1, p.SessionID)
		mustRun(t, err)
		return Retry(t.Context(), r.rdb, 1, found, func(context.Context, string) (*domain.Record, error) {
			return &domain.Record{Event: domain.Event{Session: session(1, 1)}, Position: 2}, nil
		})
	}))
	server.CheckRights()
}
