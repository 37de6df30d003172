package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"chatsessions/docs/events"
)

// TestTheDescriptionOfTheEventsIsThereForEverybody, with a token or without, and is
// cached as documents are.
func TestTheDescriptionOfTheEventsIsThereForEverybody(t *testing.T) {
	s := startService(t, "--dev")
	stranger := &client{t, s.url, "nonsense"}
	documents := events.Documents()
	if len(documents) < 8 {
		t.Fatalf("%d documents", len(documents))
	}
	for _, d := range documents {
		response, err := httpClient.Get(s.url + d.Path) // without a token
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != http.StatusOK || !bytes.Equal(content, d.Content) || response.Header.Get("Content-Type") != d.MediaType {
			t.Errorf("%s: %s, %s, %d bytes of %d, %v", d.Path, response.Status, response.Header.Get("Content-Type"), len(content), len(d.Content), err)
		}
		tag := response.Header.Get("ETag")
		if cache := response.Header.Get("Cache-Control"); tag == "" || cache != "public, max-age=3600" {
			t.Errorf("%s: ETag %s, Cache-Control %s", d.Path, tag, cache)
		}
		for _, known := range []string{tag, "W/" + tag, `"other", ` + tag, "*"} {
			if a := stranger.expect(304, "GET", d.Path, "", "If-None-Match: "+known); len(a.body) > 0 || a.header.Get("ETag") != tag {
				t.Errorf("%s: a 304 with %d bytes and ETag %s", d.Path, len(a.body), a.header.Get("ETag"))
			}
		}
		stranger.expect(200, "GET", d.Path, "", `If-None-Match: "other"`)
		stranger.refused(400, "GET", d.Path, "", "If-None-Match: other")
		if a := stranger.expect(200, "HEAD", d.Path, ""); a.header.Get("Content-Length") != fmt.Sprint(len(d.Content)) || a.header.Get("ETag") != tag {
			t.Errorf("HEAD %s: %v", d.Path, a.header)
		}
		for _, method := range []string{"POST", "PATCH", "DELETE", "BREW"} {
			if a := stranger.expect(405, method, d.Path, "{}"); a.header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: Allow is %q", method, d.Path, a.header.Get("Allow"))
			}
		}
	}
	for _, path := range []string{
		"/chat-sessions/events/schemas", "/chat-sessions/events/schemas/gone.json", "/chat-sessions/events/events.go",
		"/chat-sessions/events/README.md", "/chat-sessions/events/schemas/../asyncapi.yaml",
	} {
		stranger.refused(404, "GET", path, "")
	}
}

// TestASubscriberFindsTheSchemaOfAnEvent: what ce-dataschema names is fetched from the
// service, with all that it refers to, and the event's data is as it says.
func TestASubscriberFindsTheSchemaOfAnEvent(t *testing.T) {
	s := startService(t, "--dev")
	alice := s.as("account-alice")
	path := alice.create(`{"participants":["bob"],"room":"one \"two\""}`)
	alice.expect(200, "PATCH", path, `{"start":true,"reject":"busy","room":null}`)
	log := s.log()
	if len(log) != 4 {
		t.Fatalf("%d events", len(log))
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(jsonschema.SchemeURLLoader{"http": fetch{}})
	for _, e := range log {
		name := strings.TrimPrefix(strings.Join(e.header["ce-dataschema"], ""), "urn:chat-sessions:")
		schema, err := c.Compile(s.url + "/chat-sessions/" + name)
		if err != nil {
			t.Fatal(err)
		}
		data, err := jsonschema.UnmarshalJSON(bytes.NewReader(e.data))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(data); err != nil {
			t.Errorf("event %d: %v", e.sequence, err)
		}
	}
}

// fetch loads schemas over HTTP.
type fetch struct{}

func (fetch) Load(url string) (any, error) {
	response, err := httpClient.Get(url)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, response.Status)
	}
	return jsonschema.UnmarshalJSON(response.Body)
}
