package eventstore_test

import (
	"errors"
	"strings"
	"testing"

	"chatsessions/domain"
	"chatsessions/eventstore"
	"chatsessions/eventstore/natstest"

	"github.com/nats-io/nats.go/jetstream"
)

// A stream that takes no more writes says so at once, and a client is not told to try again.
func TestAWriteThatTheStreamRefusesForGoodIsToldFromOneThatMaySucceed(t *testing.T) {
	for says, change := range map[string]func(*jetstream.StreamConfig){
		"sealed":                   func(c *jetstream.StreamConfig) { c.Sealed = true },
		"maximum messages":         func(c *jetstream.StreamConfig) { c.MaxMsgs, c.Discard = 1, jetstream.DiscardNew },
		"maximum bytes":            func(c *jetstream.StreamConfig) { c.MaxBytes, c.Discard = 500, jetstream.DiscardNew },
		"message size exceeds max": func(c *jetstream.StreamConfig) { c.MaxMsgSize = 10 },
	} {
		t.Run(says, func(t *testing.T) {
			nc := connect(t, natstest.Start(t, natstest.Config{}).URL())
			l := openLog(t, nc)
			id := newID()
			mustTransact(t, l, request(id, "pat"), create(id, "pat"))
			js, err := jetstream.New(nc)
			if err != nil {
				t.Fatal(err)
			}
			stream, err := js.Stream(t.Context(), eventstore.StreamName)
			if err != nil {
				t.Fatal(err)
			}
			config := stream.CachedInfo().Config
			change(&config)
			if _, err := js.UpdateStream(t.Context(), config); err != nil {
				t.Fatal(err)
			}
			id = newID()
			_, err = l.Transact(t.Context(), request(id, "pat"), create(id, "pat"))
			if !errors.Is(err, domain.ErrUnavailable) || !errors.Is(err, domain.ErrNotWritable) || errors.Is(err, domain.ErrOutcomeUnknown) || !strings.Contains(err.Error(), says) {
				t.Error(err)
			}
		})
	}
}
