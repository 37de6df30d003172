package eventstore_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"chatsessions/domain"
	"chatsessions/eventstore"
	"chatsessions/eventstore/backup"
	"chatsessions/eventstore/blocks"
	"chatsessions/eventstore/embedded"
	"chatsessions/eventstore/natstest"

	"github.com/nats-io/nats.go/jetstream"
)

// until retries a condition until it holds.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for began := time.Now(); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > 30*time.Second {
			t.Fatal(what)
		}
	}
}

func writable(t *testing.T, l *eventstore.Log) error {
	t.Helper()
	id := newID()
	_, err := l.Transact(testContext(t), request(id, "pat"), imported(id, "pat"))
	return err
}

// TestLogThatIsReplaced: an operator deletes the stream and creates or restores another
// beneath two running nodes.
func TestAReplacedLogIsNoticed(t *testing.T) {
	for name, newer := range map[string]bool{"another log": true, "an older copy": false} {
		t.Run(name, func(t *testing.T) {
			server := natstest.Start(t, natstest.Config{})
			one, two := openLog(t, connect(t, server.URL())), openLog(t, connect(t, server.URL()))
			js, err := jetstream.New(connect(t, server.URL()))
			if err != nil {
				t.Fatal(err)
			}
			id := newID()
			if _, err := one.Transact(testContext(t), request(id, "pat"), create(id, "pat")); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "backup")
			if _, err := backup.Save(t.Context(), one, file, func(int64) {}); err != nil {
				t.Fatal(err)
			}
			for range 5 { // the copy does not have these
				if _, err := one.Transact(testContext(t), request(id, "pat"), setRoom(newID())); err != nil {
					t.Fatal(err)
				}
			}
			before := one.Identity()
			ended := make(chan error, 1)
			go func() {
				ended <- two.Follow(testContext(t), 0, 10, func([]domain.Entry) error { return nil })
			}()
			until(t, "the second node has not seen the end", func() bool {
				end, err := two.End(t.Context())
				return err == nil && end == 6
			})
			time.Sleep(time.Second) // a probe of the second node sees it, too

			if err := js.DeleteStream(t.Context(), eventstore.StreamName); err != nil {
				t.Fatal(err)
			}
			if newer {
				if _, err := js.CreateStream(t.Context(), eventstore.StreamConfig(1)); err != nil {
					t.Fatal(err)
				}
			} else {
				archive, err := backup.Open(file)
				if err != nil {
					t.Fatal(err)
				}
				defer archive.Close()
				if err := archive.Restore(t.Context(), connect(t, server.URL()), 1, func(_, _ int64) {}); err != nil {
					t.Fatal(err)
				}
			}
			// Until the nodes have noticed it, no write may be answered with a success that an
			// earlier state decided: the copy has one event, and no other log has the session.
			version := uint64(1)
			for range 3 {
				r, err := one.Transact(testContext(t), request(id, "pat"), setRoom(newID()))
				if err != nil {
					continue
				}
				if version++; newer || r.Record.Event.Session.Version != version {
					t.Fatalf("written at %d, version %d, want %d", r.Record.Position, r.Record.Event.Session.Version, version)
				}
			}
			for _, l := range []*eventstore.Log{one, two} {
				until(t, "writes are not accepted again", func() bool { return writable(t, l) == nil })
				if l.Identity() == before {
					t.Errorf("the log is still %s", before)
				}
			}
			if err := <-ended; !errors.Is(err, eventstore.ErrReplaced) && !errors.Is(err, eventstore.ErrRewritten) {
				t.Errorf("the follower has ended with %v", err)
			}
		})
	}
}

func TestSettingsThatBreakAPromiseAreNoticed(t *testing.T) {
	server := natstest.Start(t, natstest.Config{})
	l := openLog(t, connect(t, server.URL()))
	nc := connect(t, server.URL())
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*jetstream.StreamConfig){
		"max_msgs_per_subject": func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 1 },
		"max_age":              func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour },
		"consumer_limits": func(c *jetstream.StreamConfig) {
			c.ConsumerLimits = jetstream.StreamConsumerLimits{InactiveThreshold: time.Second}
		},
	} {
		config := eventstore.StreamConfig(1)
		change(&config)
		if _, err := js.UpdateStream(t.Context(), config); err != nil {
			t.Fatal(err)
		}
		var wrong *eventstore.ConfigError
		until(t, name+" was not noticed", func() bool { return errors.As(writable(t, l), &wrong) })
		if len(wrong.Differences) != 1 || wrong.Differences[0].Field != name {
			t.Errorf("%s: %v", name, wrong)
		}
		if _, err := l.End(t.Context()); !errors.As(err, &wrong) {
			t.Errorf("%s: the end is shown: %v", name, err)
		}
		if _, err := eventstore.Open(t.Context(), nc, eventstore.Options{}); !errors.As(err, &wrong) {
			t.Errorf("%s: opened: %v", name, err)
		}
		if _, err := js.UpdateStream(t.Context(), eventstore.StreamConfig(1)); err != nil {
			t.Fatal(err)
		}
		until(t, name+": not writable again", func() bool { return writable(t, l) == nil })
	}
}

func embeddedLog(t *testing.T, dir string) (*eventstore.Log, func()) {
	t.Helper()
	e := startEmbedded(t, dir)
	nc := connectEmbedded(t, e)
	l := openLog(t, nc, e)
	return l, func() { l.Close(); nc.Close(); e.Shutdown() }
}

// damage flips a bit in the middle of a log.
func damage(t *testing.T, storeDir string) {
	t.Helper()
	block := blocks.Path(blocks.MessagesDir(storeDir, eventstore.StreamName), 1)
	content, err := os.ReadFile(block)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(block, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestGaps: a salvaged log lacks events.
func TestAGapInTheLogIsHandedOver(t *testing.T) {
	dir := t.TempDir()
	l, stop := embeddedLog(t, filepath.Join(dir, "log"))
	for range 5 {
		if err := writable(t, l); err != nil {
			t.Fatal(err)
		}
	}
	end := mustEnd(t, l)
	stop()
	damage(t, filepath.Join(dir, "log"))
	salvaged, err := embedded.Salvage(t.Context(), filepath.Join(dir, "log"), filepath.Join(dir, "salvaged"), func(error) {}, func(_, _ int64) {})
	if err != nil || len(salvaged.Lost) != 1 {
		t.Fatalf("%+v, %v", salvaged, err)
	}
	lost := salvaged.Lost[0]
	offline, unlock, err := embedded.OpenOffline(t.Context(), filepath.Join(dir, "salvaged"), func(err error) { t.Error(err) }, func(_, _ int64) {})
	if err != nil {
		t.Fatal(err)
	}
	read := func(l *eventstore.Log) (positions []uint64, gaps int) {
		t.Helper()
		err := l.Read(testContext(t), 0, end, 7, func(batch []domain.Entry) error {
			for _, e := range batch {
				positions = append(positions, e.Record.Position)
				if e.Err != nil {
					if gaps++; !errors.Is(e.Err, domain.ErrUnreadable) || e.Record.Position != lost.To {
						t.Errorf("position %d: %v", e.Record.Position, e.Err)
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return positions, gaps
	}
	check := func(what string, l *eventstore.Log) {
		t.Helper()
		positions, gaps := read(l)
		if gaps != 1 || uint64(len(positions)) != end-(lost.To-lost.From) {
			t.Errorf("%s: %d gaps, positions %v", what, gaps, positions)
		}
	}
	check("stopped", offline)
	offline.Close()
	unlock()
	l, _ = embeddedLog(t, filepath.Join(dir, "salvaged"))
	check("running", l)
}
