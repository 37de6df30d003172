package envelope_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"chatsessions/domain"
	"chatsessions/domain/cloudevent"
	"chatsessions/eventstore"
	"chatsessions/eventstore/embedded"
	"chatsessions/eventstore/envelope"
	"chatsessions/eventstore/natstest"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// subscribe reads the stream up to a position as the description says: through a durable
// consumer that acknowledges.
func subscribe(t *testing.T, nc *nats.Conn, upTo uint64) []*envelope.Message {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := js.CreateOrUpdateConsumer(t.Context(), eventstore.StreamName, jetstream.ConsumerConfig{
		Durable: "subscriber", AckPolicy: jetstream.AckExplicitPolicy,
	})
	if err != nil {
		t.Fatal(err)
	}
	var messages []*envelope.Message
	for uint64(len(messages)) < upTo {
		m, err := consumer.Next(jetstream.FetchMaxWait(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		meta, err := m.Metadata()
		if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, &envelope.Message{Subject: m.Subject(), Sequence: meta.Sequence.Stream, Header: m.Headers(), Data: m.Data()})
		if err := m.Ack(); err != nil {
			t.Fatal(err)
		}
	}
	return messages
}

// writeEveryType writes lives of sessions in which every type of event occurs, each with
// as much as it may have and with as little, and returns the end of the log.
func writeEveryType(t *testing.T, l *eventstore.Log) uint64 {
	t.Helper()
	now := func() int64 { return time.Now().UnixMilli() }
	pat := domain.Caller{Account: "Zoë 50% \"x\"", Role: domain.RoleAccount}
	doc := domain.Caller{Account: "doc", Role: domain.RoleService}
	write := func(id, key string, by domain.Caller, command func() domain.Command) {
		t.Helper()
		req := domain.Request{SessionID: id, Actor: by.Account, CorrelationID: uuid.NewString(), TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}
		if key != "" {
			req.Key, req.Digest = strings.Repeat(key, 64), strings.Repeat("d", 64)
		}
		_, err := l.Transact(t.Context(), req, func(s domain.Session) ([]domain.Event, error) { return domain.Decide(s, command()) })
		if err != nil {
			t.Fatal(err)
		}
	}
	change := func(by domain.Caller, set func(c *domain.Change)) func() domain.Command {
		return func() domain.Command {
			c := domain.Change{By: by, Now: now()}
			set(&c)
			return c
		}
	}
	text := func(n int) *string { s := strings.Repeat("ż", n-1) + "\n"; return &s }
	telemed, none, nobody := domain.TypeTelemed, "", []string{}
	everybody := make([]string, domain.MaxParticipants)
	for i := range everybody {
		everybody[i] = fmt.Sprintf("%0*d", domain.MaxAccount, i)
	}

	full := uuid.Must(uuid.NewV7()).String()
	write(full, "a", pat, func() domain.Command {
		return domain.Create{ID: full, By: pat, Now: now(), Values: domain.Values{Type: &telemed, Room: text(domain.MaxRoom), Participants: &everybody}}
	})
	write(full, "b", doc, change(doc, func(c *domain.Change) { c.Directives[domain.Start].Asked = true }))
	write(full, "", doc, change(doc, func(c *domain.Change) {
		c.Directives[domain.Reject] = domain.Directive{Asked: true, Reason: *text(domain.MaxReason)}
	}))
	write(full, "", doc, change(doc, func(c *domain.Change) { // corrected and updated: what was there goes
		c.Values = domain.Values{Type: &none, Room: &none, Participants: &nobody}
		c.Values.Stamps[domain.Reject].Reason = &none
	}))
	write(full, "", doc, change(doc, func(c *domain.Change) {
		c.Directives[domain.Finish] = domain.Directive{Asked: true, Reason: "done"}
	}))

	least := uuid.Must(uuid.NewV7()).String()
	write(least, "c", pat, func() domain.Command { return domain.Create{ID: least, By: pat, Now: now()} })
	write(least, "", doc, change(doc, func(c *domain.Change) {
		early := int64(0)
		c.Values.CreatedAt = &early
	}))
	write(least, "", doc, change(doc, func(c *domain.Change) { // all in one atomic write
		c.Directives[domain.Start].Asked, c.Directives[domain.Accept].Asked, c.Directives[domain.Finish].Asked = true, true, true
	}))
	write(least, "", doc, change(doc, func(c *domain.Change) {
		for _, stamp := range []domain.Transition{domain.Start, domain.Accept, domain.Finish} {
			at := int64(stamp) + 1
			c.Values.Stamps[stamp].At, c.Values.Stamps[stamp].By = &at, text(domain.MaxAccount)
		}
	}))
	end, err := l.End(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return end
}

// TestMessagesAreAsPublished reads what the service writes as a subscriber does, and
// compares it with the description in docs/events.
func TestMessagesAreAsPublished(t *testing.T) {
	t.Run("embedded", func(t *testing.T) {
		e, err := embedded.Start(t.Context(), embedded.Options{StoreDir: t.TempDir(), User: "u", Password: "p"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(e.Shutdown)
		nc, err := e.Connect()
		testMessagesAreAsPublished(t, nc, err, eventstore.Options{Durability: e})
	})
	t.Run("server", func(t *testing.T) {
		s := natstest.Start(t, natstest.Config{})
		nc, err := eventstore.Connect(t.Context(), eventstore.ConnectOptions{URL: s.URL()})
		testMessagesAreAsPublished(t, nc, err, eventstore.Options{})
	})
}

func testMessagesAreAsPublished(t *testing.T, nc *nats.Conn, err error, o eventstore.Options) {
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	l, err := eventstore.Open(t.Context(), nc, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	standard := standardCloudEvent(t)
	seen := map[domain.EventType]bool{}
	for _, m := range subscribe(t, nc, writeEveryType(t, l)) {
		typ := domain.EventType(m.Header["ce-type"][0])
		seen[typ] = true
		if err := envelope.PublishedHeaders(t, typ).CheckHeaders(m.Header); err != nil {
			t.Errorf("%s %d: headers: %v", typ, m.Sequence, err)
		}
		if err := envelope.PublishedData(t, typ).Check(m.Data); err != nil {
			t.Errorf("%s %d: data: %v", typ, m.Sequence, err)
		}
		r, err := envelope.Decode(m)
		if err != nil {
			t.Fatal(err)
		}
		event := cloudevent.Append(nil, r)
		if err := envelope.PublishedCloudEvent(t, typ).Check(event); err != nil {
			t.Errorf("%s %d as a CloudEvent: %v", typ, m.Sequence, err)
		}
		if err := standard(event); err != nil {
			t.Errorf("%s %d by the rules of CloudEvents: %v", typ, m.Sequence, err)
		}
	}
	if len(seen) != len(changedBy) {
		t.Errorf("only %v were written", slices.Collect(maps.Keys(seen)))
	}
}

// standardCloudEvent returns a check by the schema that CloudEvents publishes for its
// JSON format, and by the rules that the schema leaves to the text of the specification:
// names of attributes (section 3.1), types of extensions (JSON format, section 2.2).
func standardCloudEvent(t *testing.T) func(event []byte) error {
	// github.com/cloudevents/spec (Apache 2.0), v1.0.2, cloudevents/formats/cloudevents.json
	content, err := os.ReadFile("../../docs/events/testdata/cloudevents-v1.0.2.json")
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("https://cloudevents.example/schema.json", parsed); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("https://cloudevents.example/schema.json")
	if err != nil {
		t.Fatal(err)
	}
	attributeName := regexp.MustCompile(`^[a-z0-9]{1,20}$`)
	return func(event []byte) error {
		if err := (envelope.Schema{compiled}).Check(event); err != nil {
			return err
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal(event, &members); err != nil {
			return err
		}
		for name, value := range members {
			var text string
			var integer int32
			switch {
			case name == "data":
				continue
			case !attributeName.MatchString(name):
				return fmt.Errorf("%q cannot be the name of an attribute", name)
			case json.Unmarshal(value, &text) != nil && json.Unmarshal(value, &integer) != nil:
				return fmt.Errorf("%s is %s, neither a string nor an integer of 32 bits", name, value)
			case strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || 0x7f <= r && r <= 0x9f }):
				return fmt.Errorf("%s is %s; control characters are not allowed in an attribute", name, value)
			}
		}
		return nil
	}
}
