package envelope

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"chatsessions/domain"
	"chatsessions/domain/cloudevent"

	"github.com/nats-io/nats.go"
)

var update = flag.Bool("update", false, "write the golden files of what is written today; those of before stay")

// goldenEvents are events of each type, as the domain makes them.
func goldenEvents(t testing.TB) []domain.Event {
	const id = "0192f5c6-3c00-7000-8000-000000000001"
	who := domain.Caller{Account: "pat", Role: domain.RoleAccount}
	doc := domain.Caller{Account: "doc", Role: domain.RoleService}
	var events []domain.Event
	decide := func(s domain.Session, c domain.Command) domain.Session {
		decided, err := domain.Decide(s, c)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range decided {
			if !slices.ContainsFunc(events, func(known domain.Event) bool { return known.Type == e.Type }) {
				events = append(events, e)
			}
			s = e.Session
		}
		return s
	}
	telemed, room, started := domain.TypeTelemed, "zażółć \"7\"\n", int64(1732000001500)
	participants := []string{"pat", "doc"}
	open := decide(domain.Session{}, domain.Create{ID: id, By: who, Now: 1732000000123, Values: domain.Values{Type: &telemed, Participants: &participants}})
	open = decide(open, domain.Change{By: who, Now: 1732000001000, Values: domain.Values{Room: &room}})
	start := domain.Change{By: who, Now: 1732000002000}
	start.Directives[domain.Start].Asked = true
	open = decide(open, start)
	correct := domain.Change{By: who, Now: 1732000003000}
	correct.Values.Stamps[domain.Start].At = &started
	open = decide(open, correct)
	reject := domain.Change{By: doc, Now: 1732000004000}
	reject.Directives[domain.Reject] = domain.Directive{Asked: true, Reason: "no time"}
	decide(open, reject)
	accept := domain.Change{By: doc, Now: 1732000004000}
	accept.Directives[domain.Accept].Asked = true
	open = decide(open, accept)
	finish := domain.Change{By: doc, Now: 1732000005000}
	finish.Directives[domain.Finish] = domain.Directive{Asked: true, Reason: "done"}
	decide(open, finish)
	return events
}

// goldenRequest is the write of a golden event.
func goldenRequest(e *domain.Event) domain.Request {
	req := domain.Request{SessionID: e.Session.ID, Actor: e.Session.CreatedBy, CorrelationID: "request 1"}
	if e.Type == domain.EventCreated {
		req.Key, req.Digest = strings.Repeat("ab", 32), strings.Repeat("cd", 32)
		req.TraceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	}
	return req
}

// TestGolden guards the storage format: one message of each type, as it is sent. What
// differs from the newest file of its type is a changed format; -update keeps it as a
// file of its own, and never touches those of before.
func TestGolden(t *testing.T) {
	events := goldenEvents(t)
	if len(events) != 7 {
		t.Fatalf("%d types of events", len(events))
	}
	for _, e := range events {
		req := goldenRequest(&e)
		m, session := Encode(&req, &e, "0192f5c6-3c00-7000-8000-0000000000ff", 41)
		newest := goldenVersions(t, e.Type)
		got, want := text(m), ""
		if len(newest) > 0 {
			want = newest[len(newest)-1].text
		}
		if got != want && *update {
			writeGolden(t, e.Type, m, newest)
			want = got
		}
		if got != want {
			t.Errorf("%s is written as\n%s\nand the newest golden file has\n%s", e.Type, got, want)
		}
		r, err := Decode(&Message{Subject: m.Subject, Sequence: 42, Header: m.Header, Data: m.Data})
		if err != nil {
			t.Fatal(err)
		}
		again, _ := r.Event.MarshalData()
		if r.Request != req || string(again) != string(m.Data) || string(session) != string(r.Event.Session.AppendJSON(nil)) || r.Event.Type != e.Type {
			t.Errorf("read %+v", r)
		}
	}
}

// TestTodaysReaderReadsEveryGoldenFile: what was ever written stays readable, and means
// what it meant.
func TestTodaysReaderReadsEveryGoldenFile(t *testing.T) {
	files := 0
	for _, e := range goldenEvents(t) {
		for _, g := range goldenVersions(t, e.Type) {
			files++
			m := g.message(t)
			r, err := Decode(m)
			if err != nil {
				t.Errorf("%s: %v", g.path, err)
				continue
			}
			if today[m.Header[HeaderDataSchema][0]] == e.Type { // by its name or, at first, its path
				if err := PublishedHeaders(t, e.Type).CheckHeaders(m.Header); err != nil {
					t.Errorf("%s has headers that the description refuses: %v", g.path, err)
				}
			}
			if r.Event.Type != e.Type || r.ID == "" || r.Request.SessionID != e.Session.ID || r.Event.Session.ID != e.Session.ID ||
				r.Request != goldenRequest(&e) || r.Time.UnixMilli() != r.Event.Session.UpdatedAt {
				t.Errorf("%s is read as %+v", g.path, r)
			}
			data, _ := r.Event.MarshalData()
			if today[m.Header[HeaderDataSchema][0]] == e.Type && string(data) != string(m.Data) {
				t.Errorf("%s is read as\n%s", g.path, data)
			}
			if wrong := Published(t, strings.TrimPrefix(cloudevent.SchemaPath(e.Type), PublishedRoot)).Check(data); wrong != nil {
				t.Errorf("%s is read as data that today's schema refuses: %v", g.path, wrong)
			}
		}
	}
	all, err := filepath.Glob("testdata/*/*.golden")
	if err != nil || len(all) != files || files < 7 {
		t.Errorf("%d golden files, %d of them in versions of known types, %v", len(all), files, err)
	}
}

// A golden is a message as it was sent by some version of the service. The folder is
// that version's number, v1.0 at first: before the dot the number of the data's shape,
// as ce-dataschema has it, behind it how often the message has grown since.
type golden struct {
	path         string
	shape, grown int
	text         string
}

var goldenFolder = regexp.MustCompile(`^testdata/v([1-9][0-9]*)\.([0-9]+)$`)

// goldenVersions returns all golden files of a type, the newest last.
func goldenVersions(t *testing.T, typ domain.EventType) []golden {
	t.Helper()
	paths, err := filepath.Glob("testdata/v*/" + string(typ) + ".golden")
	if err != nil {
		t.Fatal(err)
	}
	var versions []golden
	for _, path := range paths {
		number := goldenFolder.FindStringSubmatch(filepath.ToSlash(filepath.Dir(path)))
		content, err := os.ReadFile(path)
		if number == nil || err != nil {
			t.Fatalf("%s: not in a folder such as v1.0, or %v", path, err)
		}
		g := golden{path: path, text: string(content)}
		g.shape, _ = strconv.Atoi(number[1])
		g.grown, _ = strconv.Atoi(number[2])
		if shape := shapeNumber(t, g.message(t).Header); shape != g.shape {
			t.Errorf("%s has data of shape %d", path, shape)
		}
		versions = append(versions, g)
	}
	slices.SortFunc(versions, func(a, b golden) int {
		if a.shape != b.shape {
			return a.shape - b.shape
		}
		return a.grown - b.grown
	})
	return versions
}

// writeGolden keeps a message that is not written as it was before.
func writeGolden(t *testing.T, typ domain.EventType, m *nats.Msg, before []golden) {
	t.Helper()
	shape, grown := shapeNumber(t, m.Header), 0
	if len(before) > 0 && before[len(before)-1].shape == shape {
		grown = before[len(before)-1].grown + 1
	}
	folder := fmt.Sprintf("testdata/v%d.%d", shape, grown)
	if err := os.Mkdir(folder, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	file, err := os.OpenFile(filepath.Join(folder, string(typ)+".golden"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString(text(m)); err != nil {
		t.Fatal(err)
	}
}

var shapeName = regexp.MustCompile(`^(?:urn:chat-sessions:|/chat-sessions/)events/schemas/chat-session\.[a-z]+(?:/([1-9][0-9]*))?\.json$`)

// shapeNumber is the number in ce-dataschema; the first shape has none.
func shapeNumber(t *testing.T, h nats.Header) int {
	t.Helper()
	found := shapeName.FindStringSubmatch(strings.Join(h[HeaderDataSchema], ""))
	switch {
	case found == nil:
		t.Fatalf("%s is %q", HeaderDataSchema, h[HeaderDataSchema])
	case found[1] == "":
		return 1
	}
	number, err := strconv.Atoi(found[1])
	if err != nil {
		t.Fatal(err)
	}
	return number
}

// text is a message for people: subject, headers in alphabetical order, data.
func text(m *nats.Msg) string {
	var lines []string
	for name, values := range m.Header {
		lines = append(lines, fmt.Sprintf("%s: %s\n", name, strings.Join(values, "|")))
	}
	slices.Sort(lines)
	return m.Subject + "\n\n" + strings.Join(lines, "") + "\n" + string(m.Data) + "\n"
}

// message is what the stream would have of the file; the message before it is the
// session's event before.
func (g *golden) message(t *testing.T) *Message {
	t.Helper()
	parts := strings.SplitN(g.text, "\n\n", 3)
	if len(parts) != 3 {
		t.Fatalf("%s is not subject, headers and data", g.path)
	}
	m := &Message{Subject: parts[0], Sequence: 42, Header: nats.Header{}, Data: []byte(strings.TrimSuffix(parts[2], "\n"))}
	for line := range strings.SplitSeq(parts[1], "\n") {
		name, value, _ := strings.Cut(line, ": ")
		m.Header[name] = append(m.Header[name], value)
	}
	return m
}
