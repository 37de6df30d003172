package redisfaults

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/eventstore/natstest"
	"chatsessions/projections"
)

// A log that was put back to an older copy has lost writes that were answered: that is
// the operator's doing. But from then on nobody is shown what the log does not have.
func TestAReadModelNewerThanARestoredLogIsNeverServed(t *testing.T) {
	t.Run("the services run on", func(t *testing.T) {
		t.Parallel() // it does little but wait
		r := startFaultRig(t)
		backup := r.backUp()
		r.goOn(2 * time.Second)
		r.restore(backup, nil)
		r.healsFrom()
		r.conclude("log restored from an older copy")
	})
	t.Run("the services are restarted", func(t *testing.T) {
		t.Parallel()
		r := startFaultRig(t)
		backup := r.backUp()
		r.goOn(2 * time.Second)
		r.load.halt()
		r.restore(backup, func() {
			r.stop(append(slices.Clone(r.projectors), r.api...))
		})
		for _, s := range append(slices.Clone(r.projectors), r.api...) {
			s.Start()
		}
		r.startLoad(0)
		r.healsFrom()
		r.conclude("log restored from an older copy, services restarted")
	})
	// What was lost is less than what is written before anybody has looked at the log.
	t.Run("the log grows beyond the read model at once", func(t *testing.T) {
		t.Parallel()
		r := startFaultRig(t)
		r.times(3, func(int) {
			r.load.halt()
			backup := r.backUp()
			r.lose(3)
			r.restore(backup, func() { r.startLoad(0) })
			r.healsFrom()
		})
		r.conclude("log restored, and at once beyond the read model")
	})
	t.Run("the log grows beyond the read model before a projector is back", func(t *testing.T) {
		t.Parallel()
		r := startFaultRig(t)
		r.load.halt()
		backup := r.backUp()
		r.lose(3)
		r.restore(backup, func() { r.stop(r.projectors) })
		r.startLoad(4 * time.Second) // their writes are answered after two
		for _, p := range r.projectors {
			p.Start()
		}
		r.healsFrom()
		r.conclude("log restored, and beyond the read model before a projector was back")
	})
}

// stop has services drain.
func (r *faultRig) stop(services []*rig.Service) {
	r.t.Helper()
	for _, s := range services {
		if status := s.Stop(); status != 0 {
			r.t.Errorf("exit status %d", status)
		}
	}
}

// lose makes writes that a restore will undo.
func (r *faultRig) lose(writes int) {
	for i := range writes {
		r.load.write(r.api[i%len(r.api)].As("account-lost"), "POST", "/chat-sessions", "", 0, `{"participants":["lost"]}`)
	}
}

// A logCopy is a copy of the log's files.
type logCopy struct {
	dir    string
	events []rig.Event
}

// backUp stops the nats-server, copies its files, and starts it again.
func (r *faultRig) backUp() logCopy {
	r.t.Helper()
	c := logCopy{dir: filepath.Join(r.t.TempDir(), "backup")}
	r.load.mayRefuse.Store(true)
	r.nats.Stop()
	r.copyFiles(c.dir, r.store)
	r.nats.Restart()
	r.heals()
	r.load.mayRefuse.Store(false)

	// What is in it, another server tells.
	again := filepath.Join(r.t.TempDir(), "read")
	r.copyFiles(again, c.dir)
	server := natstest.Start(r.t, natstest.Config{StoreDir: again})
	defer server.Kill()
	nc, err := nats.Connect(server.URL())
	if err != nil {
		r.t.Fatal(err)
	}
	defer nc.Close()
	if c.events, err = rig.ReadLog(r.t.Context(), nc); err != nil {
		r.t.Fatal(err)
	}
	return c
}

// restore stops the nats-server for longer than a look at the log's end counts, puts
// the copy in the place of its files, and starts it again. What is done meanwhile, is
// done while nothing of either log can be reached.
func (r *faultRig) restore(c logCopy, meanwhile func()) {
	r.t.Helper()
	r.load.faulty.Store(true)
	r.load.mayRefuse.Store(true)
	r.nats.Stop()
	if meanwhile != nil {
		meanwhile()
	}
	r.goOn(projections.Bound + 500*time.Millisecond)
	if err := os.RemoveAll(r.store); err != nil {
		r.t.Fatal(err)
	}
	r.copyFiles(r.store, c.dir)
	undone := r.load.truth.restored(c.events)
	r.t.Logf("the copy has %d events; %d answered writes were lost by putting it back", len(c.events), undone)
	if undone == 0 {
		r.t.Error("the copy is not older")
	}
	r.nats.Restart()
}

func (r *faultRig) copyFiles(to, from string) {
	r.t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		r.t.Fatal(err)
	}
}

// healsFrom returns when all is well after a restore, also with sessions of which
// events were lost.
func (r *faultRig) healsFrom() {
	r.t.Helper()
	r.heals()
	lost, shortened := r.load.truth.lost()
	r.t.Logf("%d sessions were lost, %d have lost some of their events", len(lost), len(shortened))
	for i, node := range r.api {
		crm := node.As("service-crm")
		for _, id := range lost {
			rig.Eventually(r.t, func() error {
				if a := r.load.get(crm, id); a.Status != 404 {
					return fmt.Errorf("a session that was lost: %w", a.Instead(nil))
				}
				return nil
			})
		}
		for _, id := range shortened {
			rig.Eventually(r.t, func() error {
				a, err := crm.Do("PATCH", "/chat-sessions/"+id, fmt.Sprintf(`{"room":"after %d"}`, i))
				if err != nil || a.Status != 200 {
					return fmt.Errorf("a session that lost events: %w", a.Instead(err))
				}
				return nil
			})
		}
	}
	r.load.mayRefuse.Store(false)
	r.over()
}
