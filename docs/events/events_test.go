package events_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"chatsessions/docs/events"
	"chatsessions/domain"
	"chatsessions/domain/cloudevent"
)

const root = "/chat-sessions/events/"

func types() []domain.EventType {
	all := []domain.EventType{domain.EventCreated, domain.EventUpdated, domain.EventCorrected}
	for _, t := range domain.Transitions() {
		all = append(all, t.EventType())
	}
	return all
}

// parsed returns all documents as JSON, by their path.
func parsed(t *testing.T) map[string]any {
	t.Helper()
	documents := map[string]any{}
	for _, d := range events.Documents() {
		content, err := jsonschema.UnmarshalJSON(bytes.NewReader(d.Content))
		if err != nil {
			t.Fatalf("%s: %v", d.Path, err)
		}
		documents[d.Path] = content
	}
	return documents
}

// compile returns the schema at a place of the documents, checked by the schema of its
// dialect.
func compile(t *testing.T, location string) *jsonschema.Schema {
	t.Helper()
	const service = "https://service.example"
	c := jsonschema.NewCompiler()
	for name, content := range parsed(t) {
		if err := c.AddResource(service+name, content); err != nil {
			t.Fatal(err)
		}
	}
	compiled, err := c.Compile(service + location)
	if err != nil {
		t.Fatalf("%s: %v", location, err)
	}
	return compiled
}

// member follows names into objects and numbers into arrays.
func member(t *testing.T, value any, names ...string) any {
	t.Helper()
	found, ok := resolve(value, names)
	if !ok {
		t.Fatalf("there is no /%s", strings.Join(names, "/"))
	}
	return found
}

func resolve(value any, names []string) (any, bool) {
	for _, name := range names {
		object, ok := value.(map[string]any)
		if !ok {
			return nil, false
		}
		if value, ok = object[name]; !ok {
			return nil, false
		}
	}
	return value, true
}

// TestSchemasAreSchemas: each is one by the rules of its dialect, named as ce-dataschema
// names it, and open to new members.
func TestSchemasAreSchemas(t *testing.T) {
	documents := parsed(t)
	for _, typ := range types() {
		if documents[cloudevent.SchemaPath(typ)] == nil {
			t.Errorf("there is no %s", cloudevent.SchemaPath(typ))
		}
	}
	for _, d := range events.Documents() {
		if d.MediaType != "application/schema+json" {
			continue
		}
		if dialect := member(t, documents[d.Path], "$schema"); dialect != "https://json-schema.org/draft/2020-12/schema" {
			t.Errorf("%s is in dialect %v", d.Path, dialect)
		}
		compile(t, d.Path)
		if bytes.Contains(d.Content, []byte("additionalProperties")) || bytes.Contains(d.Content, []byte("unevaluatedProperties")) {
			t.Errorf("%s is closed: what grows would break its readers", d.Path)
		}
		// With an $id, which could only be relative, the files could not be used from disk.
		if bytes.Contains(d.Content, []byte(`"$id"`)) {
			t.Errorf("%s has an $id", d.Path)
		}
	}
}

// TestEveryFieldIsDescribed: the session of the schemas is that of the domain.
func TestEveryFieldIsDescribed(t *testing.T) {
	for _, name := range []string{"schemas/session.json", "schemas/changes.json"} {
		properties := compile(t, root+name).Properties
		for _, field := range domain.FieldNames() {
			if properties[field] == nil {
				t.Errorf("%s lacks %s", name, field)
			}
		}
		if len(properties) != len(domain.FieldNames()) {
			t.Errorf("%s has %d fields, the domain %d", name, len(properties), len(domain.FieldNames()))
		}
	}
}

// TestEveryReferenceLeadsSomewhere, on disk as when they are served.
func TestEveryReferenceLeadsSomewhere(t *testing.T) {
	documents := parsed(t)
	references := 0
	var walk func(base string, value any)
	walk = func(base string, value any) {
		switch value := value.(type) {
		case []any:
			for _, v := range value {
				walk(base, v)
			}
		case map[string]any:
			for name, v := range value {
				if reference, ok := v.(string); ok && name == "$ref" {
					references++
					if err := leads(documents, base, reference); err != nil {
						t.Errorf("%s: %s: %v", base, reference, err)
					}
					continue
				}
				walk(base, v)
			}
		}
	}
	for name, content := range documents {
		walk(name, content)
	}
	if references < 100 {
		t.Errorf("only %d references were found", references)
	}
}

// leads says what is wrong with a reference in the document at base.
func leads(documents map[string]any, base, reference string) error {
	file, pointer, _ := strings.Cut(reference, "#")
	target := base
	if file != "" {
		target = path.Join(path.Dir(base), file)
	}
	content, ok := documents[target]
	if !ok {
		return fmt.Errorf("there is no %s", target)
	}
	if pointer == "" {
		return nil
	}
	names := strings.Split(pointer, "/")
	for i := range names {
		names[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(names[i])
	}
	if _, ok := resolve(content, names[1:]); !ok || names[0] != "" {
		return fmt.Errorf("%s has no %s", target, pointer)
	}
	return nil
}

// TestEveryTypeHasItsMessages: in the log and in the feed, with headers and payload that
// are schemas; and no other message but the feed's problem.
func TestEveryTypeHasItsMessages(t *testing.T) {
	document := parsed(t)[root+"asyncapi.json"]
	if version := member(t, document, "asyncapi"); version != "3.0.0" {
		t.Errorf("AsyncAPI %v", version)
	}
	if stream := member(t, document, "channels", "log", "x-jetstream", "stream"); stream != "CHAT_SESSIONS" {
		t.Errorf("the stream is %v", stream)
	}
	described := map[string]bool{}
	message := func(channel, name, component string) map[string]any {
		t.Helper()
		described[component] = true
		if reference := member(t, document, "channels", channel, "messages", name, "$ref"); reference != "#/components/messages/"+component {
			t.Errorf("%s in %s is %v", name, channel, reference)
		}
		for _, part := range []string{"headers", "payload"} {
			compile(t, root+"asyncapi.json#/components/messages/"+component+"/"+part)
		}
		return member(t, document, "components", "messages", component).(map[string]any)
	}
	for _, typ := range types() {
		m := message("log", string(typ), string(typ))
		if m["name"] != string(typ) || m["contentType"] != cloudevent.DataType || root+member(t, m, "payload", "$ref").(string) != cloudevent.SchemaPath(typ) {
			t.Errorf("%s in the log is %v", typ, m)
		}
		m = message("feed", string(typ), "feed."+string(typ))
		if m["name"] != string(typ) || m["contentType"] != "application/cloudevents+json" {
			t.Errorf("%s in the feed is %v", typ, m)
		}
	}
	message("feed", "problem", "feed.problem")
	if all := member(t, document, "components", "messages").(map[string]any); len(all) != len(described) {
		t.Errorf("%d messages are described, %d belong there", len(all), len(described))
	}
	for channel, count := range map[string]int{"log": len(types()), "feed": len(types()) + 1} {
		if all := member(t, document, "channels", channel, "messages").(map[string]any); len(all) != count {
			t.Errorf("%d messages in %s", len(all), channel)
		}
	}
}

// TestExamplesAreWhatTheyStandFor: an example that its own schema refuses would mislead.
func TestExamplesAreWhatTheyStandFor(t *testing.T) {
	document := parsed(t)[root+"asyncapi.json"]
	var shown []string
	for name, message := range member(t, document, "components", "messages").(map[string]any) {
		examples, _ := message.(map[string]any)["examples"].([]any)
		for _, example := range examples {
			shown = append(shown, name)
			for _, part := range []string{"headers", "payload"} {
				if err := compile(t, root+"asyncapi.json#/components/messages/"+name+"/"+part).Validate(member(t, example, part)); err != nil {
					t.Errorf("example of %s: %v", name, err)
				}
			}
		}
	}
	for _, name := range []string{"chat-session.accepted", "feed.chat-session.accepted", "feed.problem"} {
		if !slices.Contains(shown, name) {
			t.Errorf("%s has no example", name)
		}
	}
}

// TestTheExampleOfTheFeedIsThatOfTheLog: the same event both ways.
func TestTheExampleOfTheFeedIsThatOfTheLog(t *testing.T) {
	document := parsed(t)[root+"asyncapi.json"]
	example := func(message string) map[string]any {
		examples := member(t, document, "components", "messages", message, "examples").([]any)
		return examples[0].(map[string]any)
	}
	headers := member(t, example("chat-session.accepted"), "headers").(map[string]any)
	payload, err := json.Marshal(member(t, example("chat-session.accepted"), "payload"))
	if err != nil {
		t.Fatal(err)
	}
	cloudEvent := member(t, example("feed.chat-session.accepted"), "payload").(map[string]any)
	data, err := json.Marshal(cloudEvent["data"])
	if err != nil || !bytes.Equal(data, payload) {
		t.Errorf("the data differs: %s, %s", data, payload)
	}
	for name, value := range headers {
		attribute, ok := strings.CutPrefix(name, "ce-")
		if got := fmt.Sprint(cloudEvent[attribute]); ok && got != strings.ReplaceAll(value.(string), "%20", " ") {
			t.Errorf("%s is %v, %s is %s", name, value, attribute, got)
		}
	}
}
