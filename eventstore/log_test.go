package eventstore_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"chatsessions/domain"
	"chatsessions/eventstore"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// TestStreamIsNotAsNeeded checks that a stream which is configured otherwise is
// refused, with every difference named, and left alone.
func TestStreamIsNotAsNeeded(t *testing.T) {
	good := jetstream.StreamConfig{
		Name: eventstore.StreamName, Subjects: []string{"chat-sessions.*"}, Storage: jetstream.FileStorage,
		DenyDelete: true, DenyPurge: true, AllowDirect: true, AllowAtomicPublish: true,
	}
	for _, test := range []struct {
		spoil func(*jetstream.StreamConfig)
		want  []string
	}{
		{func(c *jetstream.StreamConfig) { c.Description, c.Duplicates = "ours", time.Minute }, nil},
		{func(c *jetstream.StreamConfig) { c.MaxAge, c.MaxMsgs = time.Hour, 10 }, []string{"max_msgs", "max_age"}},
		{func(c *jetstream.StreamConfig) { c.Subjects = []string{"chat-sessions.>"} }, []string{"subjects"}},
		{func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage }, []string{"storage"}},
		{func(c *jetstream.StreamConfig) { c.Retention = jetstream.InterestPolicy }, []string{"retention"}},
		{func(c *jetstream.StreamConfig) {
			c.DenyDelete, c.DenyPurge, c.AllowDirect, c.AllowAtomicPublish = false, false, false, false
		}, []string{"deny_delete", "deny_purge", "allow_direct", "allow_atomic"}},
		// The server takes deny_purge back by itself for this one.
		{func(c *jetstream.StreamConfig) { c.AllowMsgSchedules = true }, []string{"deny_purge", "allow_rollup_hdrs", "allow_msg_schedules"}},
		{func(c *jetstream.StreamConfig) {
			c.MaxBytes, c.MaxMsgSize, c.MaxMsgsPerSubject = 1<<20, 1000, 5
		}, []string{"max_bytes", "max_msgs_per_subject", "max_msg_size"}},
		{func(c *jetstream.StreamConfig) { c.NoAck, c.FirstSeq = true, 10 }, []string{"first_seq", "no_ack"}},
		{func(c *jetstream.StreamConfig) {
			c.SubjectTransform = &jetstream.SubjectTransformConfig{Source: "chat-sessions.*", Destination: "x.{{wildcard(1)}}"}
		}, []string{"subject_transform"}},
	} {
		config := good
		test.spoil(&config)
		t.Run(fmt.Sprint(test.want), func(t *testing.T) {
			nc := connectEmbedded(t, startEmbedded(t, t.TempDir()))
			js, err := jetstream.New(nc)
			if err != nil {
				t.Fatal(err)
			}
			stream, err := js.CreateStream(testContext(t), config)
			if err != nil {
				t.Fatal(err)
			}
			l, err := eventstore.Open(testContext(t), nc, eventstore.Options{})
			if len(test.want) == 0 {
				if err != nil {
					t.Fatal(err)
				}
				l.Close()
				return
			}
			var differs *eventstore.ConfigError
			if !errors.As(err, &differs) {
				t.Fatalf("open: %v", err)
			}
			var fields []string
			for _, d := range differs.Differences {
				fields = append(fields, d.Field)
				if d.Found == d.Needed || !strings.Contains(err.Error(), d.Field+" is "+d.Found+", needed is "+d.Needed) {
					t.Errorf("%+v in %v", d, err)
				}
			}
			if !slices.Equal(fields, test.want) {
				t.Errorf("differences in %v, want %v", fields, test.want)
			}
			info, err := stream.Info(testContext(t))
			if err != nil || info.Config.MaxAge != config.MaxAge || info.Config.DenyDelete != config.DenyDelete {
				t.Errorf("the stream was changed: %+v, %v", info, err)
			}
		})
	}
}

func TestOpenNeedsAConnectionThatKeepsNothing(t *testing.T) {
	e := startEmbedded(t, t.TempDir())
	nc, err := nats.Connect(e.ClientURL(), nats.UserInfo("chatsessions", "secret"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := eventstore.Open(testContext(t), nc, eventstore.Options{}); err == nil {
		t.Error("opened over a connection that sends late")
	}
}

// TestEmbeddedKeepsEverything starts again on the same directory.
func TestEmbeddedKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	var want []domain.Entry
	var identity string
	for run := range 3 {
		e := startEmbedded(t, dir)
		nc := connectEmbedded(t, e)
		l := openLog(t, nc, e)
		if run == 0 {
			identity = l.Identity()
		}
		if l.Identity() != identity || strings.ContainsAny(identity, " \t\n") {
			t.Errorf("run %d: identity %q, was %q", run, l.Identity(), identity)
		}
		if got := everything(t, l, 0); !slices.EqualFunc(got, want, sameEntry) {
			t.Errorf("run %d: %d events, want %d", run, len(got), len(want))
		}
		for range 5 {
			id := newID()
			mustTransact(t, l, request(id, "pat"), imported(id, "pat"))
			mustTransact(t, l, request(id, "pat"), setRoom("r"))
		}
		want = everything(t, l, 0)
		l.Close()
		nc.Close()
		e.Shutdown()
	}
	if len(want) != 3*5*(importedEvents+1) {
		t.Errorf("%d events", len(want))
	}
}

func TestLongHistoryWithKey(t *testing.T) {
	e := startEmbedded(t, t.TempDir())
	l := openLog(t, connectEmbedded(t, e))
	id := newID()
	first := keyed(id, "pat", "k", "body")
	first.New = true
	mustTransact(t, l, first, create(id, "pat"))
	second := keyed(id, "pat", "k2", "body")
	mustTransact(t, l, second, setRoom("with the second key"))
	for i := range 999 {
		mustTransact(t, l, request(id, "pat"), setRoom(fmt.Sprint(i)))
	}
	refuse := func(domain.Session) ([]domain.Event, error) { return nil, fmt.Errorf("decided anew") }
	if got := mustTransact(t, l, second, refuse); got.Record.Position != 2 || got.Before.Version != 1 {
		t.Errorf("the thousandth event is not searched: %+v", got)
	}
	mustTransact(t, l, request(id, "pat"), setRoom("one more"))
	_, err := l.Transact(testContext(t), second, refuse)
	if !errors.Is(err, domain.ErrHistoryTooLong) || !strings.Contains(err.Error(), "1000") {
		t.Errorf("%v", err)
	}
	forgetful := openLog(t, connectEmbedded(t, e)) // it takes the request's word that there is no session
	for _, l := range []*eventstore.Log{l, forgetful} {
		if got := mustTransact(t, l, first, create(id, "pat")); got.Record.Position != 1 || got.Before.Exists() {
			t.Errorf("the creation is not answered again: %+v", got)
		}
	}
	if got := mustTransact(t, l, request(id, "pat"), setRoom("without a key")); got.Record.Event.Session.Version != 1003 {
		t.Errorf("%+v", got)
	}
}
