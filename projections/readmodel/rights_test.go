package readmodel

import (
	"context"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"chatsessions/domain"
	"chatsessions/domain/query"
	"chatsessions/projections/layout"
	"chatsessions/projections/logtest"
	"chatsessions/projections/modeltest"
	"chatsessions/projections/projector"
	"chatsessions/projections/redistest"
)

// The rights in deploy/redis/users.acl are enough for everything that this package does.
func TestTheServiceHasTheRightsThatItNeeds(t *testing.T) {
	server := redistest.Start(t, redistest.Config{ACL: true})
	log := logtest.New("log")
	r := newRig(t, modeltest.Connect(t, server), log)
	rapid.Check(t, func(rt *rapid.T) {
		log.Append(logtest.Histories(rt)...)
		r.caughtUp()
		for range 3 {
			checkList(rt, r.ReadModel, log.Sessions(), drawQuery(rt, 3))
		}
	})
	for i := range maxQueries + 1 {
		text := fmt.Sprint("query ", i)
		digest, err := r.SaveQuery(t.Context(), "alice", text)
		logtest.MustRun(t, err)
		if got, err := r.LoadQuery(t.Context(), "alice", digest); err != nil || got != text {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	r.projector.End()
	other := logtest.New("other")
	other.Append(logtest.Session(1, 1))
	r = newRig(t, r.rdb, other) // all is built anew
	r.caughtUp()
	checkList(t, r.ReadModel, other.Sessions(), query.Everything(1000))

	logtest.MustRun(t, r.rdb.Del(t.Context(), r.liveKeys().Document(logtest.ID(1))).Err()) // something to find
	if done, err := projector.Rebuild(t.Context(), r.rdb, other, projector.RebuildOptions{}); err != nil || done.Differences == 0 {
		t.Fatalf("rebuilt %+v, %v", done, err)
	}
	other.RecordUnreadable(1)
	r.caughtUp()
	logtest.MustRun(t, projector.EachParked(t.Context(), r.rdb, 1, func(p layout.Parked) error {
		found, err := projector.FindParked(t.Context(), r.rdb, 1, p.SessionID)
		logtest.MustRun(t, err)
		return projector.Retry(t.Context(), r.rdb, 1, found, func(context.Context, string) (*domain.Record, error) {
			return &domain.Record{Event: domain.Event{Session: logtest.Session(1, 1)}, Position: 2}, nil
		})
	}))
	server.CheckRights()
}
