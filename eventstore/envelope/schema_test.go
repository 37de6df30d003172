package envelope

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"chatsessions/docs/events"
	"chatsessions/domain"
	"chatsessions/domain/cloudevent"

	"github.com/nats-io/nats.go"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// PublishedRoot is the folder in which the service serves the description of its events.
const PublishedRoot = "/chat-sessions/events/"

// A schema is one that the service publishes.
type Schema struct{ *jsonschema.Schema }

// published returns a schema of docs/events, or the part of a document that a pointer
// leads to. References in it lead to other documents that are served, and nowhere else.
func Published(t testing.TB, location string) Schema {
	t.Helper()
	const service = "https://service.example"
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	for _, d := range events.Documents() {
		content, err := jsonschema.UnmarshalJSON(bytes.NewReader(d.Content))
		if err != nil {
			t.Fatalf("%s: %v", d.Path, err)
		}
		if err := c.AddResource(service+d.Path, content); err != nil {
			t.Fatal(err)
		}
	}
	compiled, err := c.Compile(service + PublishedRoot + location)
	if err != nil {
		t.Fatal(err)
	}
	return Schema{compiled}
}

// check says what is wrong with a value that is JSON.
func (s Schema) Check(data []byte) error {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return err
	}
	return s.Validate(value)
}

// checkHeaders says what is wrong with the headers of a message.
func (s Schema) CheckHeaders(h nats.Header) error {
	values := map[string]any{}
	for name, all := range h {
		if len(all) != 1 {
			return fmt.Errorf("%s is there %d times", name, len(all))
		}
		values[name] = all[0]
	}
	return s.Validate(values)
}

// What is published of a message of a type.
func PublishedData(t testing.TB, typ domain.EventType) Schema {
	return Published(t, strings.TrimPrefix(cloudevent.SchemaPath(typ), PublishedRoot))
}

func PublishedHeaders(t testing.TB, typ domain.EventType) Schema {
	return Published(t, "asyncapi.json#/components/messages/"+string(typ)+"/headers")
}

func PublishedCloudEvent(t testing.TB, typ domain.EventType) Schema {
	return Published(t, "asyncapi.json#/components/messages/feed."+string(typ)+"/payload")
}

// TestHeadersAreThePublishedOnes: what an event can be sent with, and no other header.
func TestHeadersAreThePublishedOnes(t *testing.T) {
	sent := map[string]bool{}
	for _, e := range goldenEvents(t) {
		req := goldenRequest(&e)
		m, _ := Encode(&req, &e, "id", 41)
		for name := range m.Header {
			sent[name] = true
		}
	}
	described := map[string]bool{}
	for name := range Published(t, "asyncapi.json#/components/schemas/headers").Properties {
		described[name] = true
	}
	if !maps.Equal(sent, described) {
		t.Errorf("sent are %v, described %v", slices.Sorted(maps.Keys(sent)), slices.Sorted(maps.Keys(described)))
	}
}
