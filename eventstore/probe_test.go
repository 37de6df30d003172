package eventstore_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"chatsessions/domain"
	"chatsessions/eventstore"
	"chatsessions/eventstore/backup"
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
