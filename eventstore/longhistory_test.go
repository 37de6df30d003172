package eventstore_test

import (
	"errors"
	"fmt"
	"testing"

	"chatsessions/domain"
)

// searched is how many events of a session a request may have to look through, twice:
// for its own write, and for its key. Beside them it reads few.
const searched = 1000

// TestARepeatedCreationOfALongSessionGetsItsFirstAnswer on a node that knows nothing
// of the session, as after a restart, and takes the request's word that it is new.
// What it reads for that does not grow with the history.
func TestARepeatedCreationOfALongSessionGetsItsFirstAnswer(t *testing.T) {
	e := startEmbedded(t, t.TempDir())
	l := openLog(t, connectEmbedded(t, e), e)
	for name, decide := range map[string]func(id, account string) func(domain.Session) ([]domain.Event, error){
		"of one event": create, "of several events": imported,
	} {
		t.Run(name, func(t *testing.T) {
			id := newID()
			req := keyed(id, "pat", "k", "body")
			req.New = true
			first := mustTransact(t, l, req, decide(id, "pat"))
			for range 9 {
				mustTransact(t, l, request(id, "doc"), setRooms(searched/2))
			}
			end := mustEnd(t, l)
			other := req
			other.Digest = keyed(id, "pat", "k", "another body").Digest
			for _, isNew := range []bool{true, false} {
				t.Run(fmt.Sprintf("New is %v", isNew), func(t *testing.T) {
					req, other := req, other
					req.New, other.New = isNew, isNew
					nc := connectEmbedded(t, e)
					forgetful := openLog(t, nc, e)
					before := nc.Stats().OutMsgs
					got := mustTransact(t, forgetful, req, decide(id, "pat"))
					if !sameRecord(got.Record, first.Record) || got.Before == nil || got.Before.Exists() {
						t.Errorf("first answered %+v, then %+v", first, got)
					}
					if sent := nc.Stats().OutMsgs - before; sent > 2*searched+50 {
						t.Errorf("that took %d requests to the server", sent)
					}
					if _, err := openLog(t, connectEmbedded(t, e), e).Transact(testContext(t), other, decide(id, "pat")); !errors.Is(err, domain.ErrKeyReused) {
						t.Errorf("the key with another body: %v", err)
					}
				})
			}
			if got := mustEnd(t, l); got != end {
				t.Errorf("repetitions wrote: the log went from %d to %d", end, got)
			}
		})
	}
}
