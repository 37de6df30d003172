package contract

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/docs/events"
)

// TestTheDescriptionOfTheEventsIsThereForEverybody, with a token or without, and is
// cached as documents are.
func TestTheDescriptionOfTheEventsIsThereForEverybody(t *testing.T) {
	s := rig.Start(t, "--dev")
	stranger := &rig.Client{T: t, URL: s.URL, Token: "nonsense"}
	documents := events.Documents()
	if len(documents) < 8 {
		t.Fatalf("%d documents", len(documents))
	}
	for _, d := range documents {
		response, err := rig.HTTPClient.Get(s.URL + d.Path) // without a token
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
			if a := stranger.Expect(304, "GET", d.Path, "", "If-None-Match: "+known); len(a.Body) > 0 || a.Header.Get("ETag") != tag {
				t.Errorf("%s: a 304 with %d bytes and ETag %s", d.Path, len(a.Body), a.Header.Get("ETag"))
			}
		}
		stranger.Expect(200, "GET", d.Path, "", `If-None-Match: "other"`)
		refused(stranger, 400, "GET", d.Path, "", "If-None-Match: other")
		if a := stranger.Expect(200, "HEAD", d.Path, ""); a.Header.Get("Content-Length") != fmt.Sprint(len(d.Content)) || a.Header.Get("ETag") != tag {
			t.Errorf("HEAD %s: %v", d.Path, a.Header)
		}
		for _, method := range []string{"POST", "PATCH", "DELETE", "BREW"} {
			if a := stranger.Expect(405, method, d.Path, "{}"); a.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: Allow is %q", method, d.Path, a.Header.Get("Allow"))
			}
		}
	}
	for _, path := range []string{
		"/chat-sessions/events/schemas", "/chat-sessions/events/schemas/gone.json", "/chat-sessions/events/events.go",
		"/chat-sessions/events/README.md", "/chat-sessions/events/schemas/../asyncapi.yaml",
	} {
		refused(stranger, 404, "GET", path, "")
	}
}

// TestASubscriberFindsTheSchemaOfAnEvent: what ce-dataschema names is fetched from the
// service, with all that it refers to, and the event's data is as it says.
func TestASubscriberFindsTheSchemaOfAnEvent(t *testing.T) {
	s := rig.Start(t, "--dev")
	alice := s.As("account-alice")
	path := alice.Create(`{"participants":["bob"],"room":"one \"two\""}`)
	alice.Expect(200, "PATCH", path, `{"start":true,"reject":"busy","room":null}`)
	log := s.Log()
	if len(log) != 4 {
		t.Fatalf("%d events", len(log))
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(jsonschema.SchemeURLLoader{"http": fetch{}})
	for _, e := range log {
		name := strings.TrimPrefix(strings.Join(e.Header["ce-dataschema"], ""), "urn:chat-sessions:")
		schema, err := c.Compile(s.URL + "/chat-sessions/" + name)
		if err != nil {
			t.Fatal(err)
		}
		data, err := jsonschema.UnmarshalJSON(bytes.NewReader(e.Data))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(data); err != nil {
			t.Errorf("event %d: %v", e.Sequence, err)
		}
	}
}

// fetch loads schemas over HTTP.
type fetch struct{}

func (fetch) Load(url string) (any, error) {
	response, err := rig.HTTPClient.Get(url)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, response.Status)
	}
	return jsonschema.UnmarshalJSON(response.Body)
}
