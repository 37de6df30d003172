package envelope_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"chatsessions/domain"
	"chatsessions/domain/cloudevent"
	"chatsessions/eventstore"
	"chatsessions/eventstore/embedded"
	"chatsessions/eventstore/envelope"
)

// What an event of each type has to change, and what it may beside that and updatedAt.
var changedBy = map[domain.EventType]struct{ must, may []string }{
	domain.EventCreated:   {[]string{"id", "createdAt", "createdBy", "state", "version", "updatedAt"}, []string{"type", "room", "participants"}},
	domain.EventStarted:   {[]string{"startedAt", "startedBy", "state", "version"}, nil},
	domain.EventAccepted:  {[]string{"acceptedAt", "acceptedBy", "state", "version"}, nil},
	domain.EventRejected:  {[]string{"rejectedAt", "rejectedBy", "state", "version"}, []string{"rejectReason"}},
	domain.EventFinished:  {[]string{"finishedAt", "finishedBy", "state", "version"}, []string{"finishReason"}},
	domain.EventUpdated:   {[]string{"version"}, []string{"createdAt", "type", "room", "participants"}},
	domain.EventCorrected: {[]string{"version"}, stampFields()},
}

// cleared are the fields that an event can take away.
var cleared = map[domain.EventType][]string{
	domain.EventUpdated:   {"type", "room", "participants"},
	domain.EventCorrected: {"rejectReason", "finishReason"},
}

func stampFields() []string {
	var names []string
	for _, t := range domain.Transitions() {
		names = append(names, t.AtField(), t.ByField())
		if reason := t.ReasonField(); reason != "" {
			names = append(names, reason)
		}
	}
	return names
}

// sample returns a value that a field can have.
func sample(field string) any {
	switch {
	case field == "id":
		return "0192f5c6-3c00-7000-8000-000000000001"
	case field == "type":
		return "telemed"
	case field == "state":
		return "started"
	case field == "version":
		return 7
	case field == "participants":
		return []any{"pat"}
	case strings.HasSuffix(field, "At"):
		return 1732000000123
	}
	return "text"
}

// A specimen is a real message, to be changed.
type specimen struct {
	headers, data, changes, session, cloudEvent map[string]any
}

func newSpecimen(t *testing.T, m *envelope.Message) *specimen {
	t.Helper()
	r, err := envelope.Decode(m)
	if err != nil {
		t.Fatal(err)
	}
	s := &specimen{headers: map[string]any{}}
	for name, values := range m.Header {
		s.headers[name] = values[0]
	}
	for into, from := range map[*map[string]any][]byte{&s.data: m.Data, &s.cloudEvent: cloudevent.Append(nil, r)} {
		if err := json.Unmarshal(from, into); err != nil {
			t.Fatal(err)
		}
	}
	s.changes, s.session = s.data["changes"].(map[string]any), s.data["session"].(map[string]any)
	s.cloudEvent["data"] = s.data
	return s
}

// A judge has the schemas of one type of event.
type judge struct {
	t                         *testing.T
	typ                       domain.EventType
	headers, data, cloudEvent envelope.Schema
	verdicts                  int
}

func newJudge(t *testing.T, typ domain.EventType) *judge {
	return &judge{t: t, typ: typ, headers: envelope.PublishedHeaders(t, typ), data: envelope.PublishedData(t, typ), cloudEvent: envelope.PublishedCloudEvent(t, typ)}
}

// changed has a copy of a message changed, and says whether the schemas have to take it.
func (j *judge) changed(what string, accepted bool, m *envelope.Message, change func(s *specimen)) {
	j.t.Helper()
	j.verdicts++
	s := newSpecimen(j.t, m)
	change(s)
	check := func(with envelope.Schema, value any) error {
		b, err := json.Marshal(value)
		if err != nil {
			j.t.Fatal(err)
		}
		return with.Check(b)
	}
	headers, data, cloudEvent := check(j.headers, s.headers), check(j.data, s.data), check(j.cloudEvent, s.cloudEvent)
	if (headers == nil && data == nil && cloudEvent == nil) != accepted {
		j.t.Errorf("%s, %s: headers: %v, data: %v, CloudEvent: %v; accepted has to be %v", j.typ, what, headers, data, cloudEvent, accepted)
	}
	if data != nil && cloudEvent == nil {
		j.t.Errorf("%s, %s: refused as data and accepted in a CloudEvent", j.typ, what)
	}
}

func (j *judge) refuses(what string, m *envelope.Message, change func(s *specimen)) {
	j.t.Helper()
	j.changed(what, false, m, change)
}

func (j *judge) accepts(what string, m *envelope.Message, change func(s *specimen)) {
	j.t.Helper()
	j.changed(what, true, m, change)
}

// TestSchemasRefuseWhatTheServiceNeverWrites changes real messages in every way that
// matters: a schema that takes everything describes nothing.
func TestSchemasRefuseWhatTheServiceNeverWrites(t *testing.T) {
	e, err := embedded.Start(t.Context(), embedded.Options{StoreDir: t.TempDir(), User: "u", Password: "p"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Shutdown)
	nc, err := e.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	l, err := eventstore.Open(t.Context(), nc, eventstore.Options{Durability: e})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	smallest := map[domain.EventType]*envelope.Message{} // the large ones say the same, more slowly
	for _, m := range subscribe(t, nc, writeEveryType(t, l)) {
		typ := domain.EventType(m.Header[envelope.HeaderType][0])
		if known := smallest[typ]; known == nil || len(m.Data) < len(known.Data) {
			smallest[typ] = m
		}
	}
	for typ, m := range smallest {
		j := newJudge(t, typ)
		j.accepts("as it is", m, func(*specimen) {})
		j.changes(m)
		j.session(m)
		j.attributes(m)
		t.Logf("%s: %d verdicts", typ, j.verdicts)
	}
	if len(smallest) != len(changedBy) {
		t.Errorf("%d types", len(smallest))
	}
}

// changes judges what an event of the type may change.
func (j *judge) changes(m *envelope.Message) {
	rule := changedBy[j.typ]
	may := append(slices.Concat(rule.must, rule.may), "updatedAt")
	for _, field := range domain.FieldNames() {
		set := func(value any) func(*specimen) { return func(s *specimen) { s.changes[field] = value } }
		if slices.Contains(rule.must, field) {
			j.refuses("changes without "+field, m, func(s *specimen) { delete(s.changes, field) })
		}
		j.refuses("changes with a wrong type of "+field, m, set(true))
		if slices.Contains(may, field) && field != "state" && field != "version" {
			j.accepts("changes with "+field, m, set(sample(field)))
		} else if !slices.Contains(may, field) {
			j.refuses("changes with "+field, m, set(sample(field)))
		}
		j.changed("changes that clear "+field, slices.Contains(cleared[j.typ], field), m, set(nil))
	}
	j.accepts("changes with a member of a later version", m, func(s *specimen) { s.changes["priority"] = 1 })
	j.refuses("no changes", m, func(s *specimen) { delete(s.data, "changes") })
	j.refuses("no session", m, func(s *specimen) { delete(s.data, "session") })
	j.refuses("changes that are a list", m, func(s *specimen) { s.data["changes"] = []any{} })
	j.refuses("changes of the version alone", m, func(s *specimen) {
		s.data["changes"] = map[string]any{"version": s.changes["version"]}
	})
	j.refuses("version 0", m, func(s *specimen) { s.changes["version"] = 0 })
	if j.typ != domain.EventCreated {
		j.refuses("version 1", m, func(s *specimen) { s.changes["version"] = 1 })
		j.refuses("changes to state created", m, func(s *specimen) { s.changes["state"] = "created" })
	}
}

// session judges the session after the event.
func (j *judge) session(m *envelope.Message) {
	has := newSpecimen(j.t, m).session
	always := []string{"id", "createdAt", "createdBy", "state", "version", "updatedAt"}
	for _, field := range domain.FieldNames() {
		set := func(value any) func(*specimen) { return func(s *specimen) { s.session[field] = value } }
		_, there := has[field]
		isStamp := slices.Contains(stampFields(), field)
		reason := strings.HasSuffix(field, "Reason")
		stray := reason && has[strings.TrimSuffix(field, "Reason")+"edAt"] == nil // without its transition
		if slices.Contains(always, field) || isStamp && there && !reason {
			j.refuses("a session without "+field, m, func(s *specimen) { delete(s.session, field) })
		}
		j.refuses("a session with a wrong type of "+field, m, set(true))
		j.refuses("a session with null as "+field, m, set(nil))
		if isStamp && !there && (!reason || stray) {
			j.refuses("a session in state "+has["state"].(string)+" with "+field, m, set(sample(field)))
		}
		switch text := strings.Repeat("ż", limit(field)); {
		case strings.HasSuffix(field, "At"):
			j.refuses(field+" before 1970", m, set(-1))
			j.refuses(field+" past the end of time", m, set(domain.MaxTime+1))
			j.refuses(field+" in seconds and their parts", m, set(1732000000.5))
			if there || !isStamp {
				j.accepts(field+" at the end of time", m, set(domain.MaxTime))
			}
		case limit(field) > 0:
			j.refuses(field+" that is too long", m, set(text+"ż"))
			j.refuses("an empty "+field, m, set(""))
			j.refuses(field+" with a control character", m, set("a\x00b"))
			j.refuses(field+" with another", m, set("a\u0085b"))
			if there || !isStamp {
				j.accepts(field+" as long as may be", m, set(text))
				j.accepts(field+" with a tab and line breaks", m, set("a\t\r\nb"))
			}
		}
	}
	everybody := make([]any, domain.MaxParticipants+1)
	for i := range everybody {
		everybody[i] = strings.Repeat("p", i+1)
	}
	for what, participants := range map[string][]any{
		"no participants": {}, "too many participants": everybody, "a participant twice": {"pat", "pat"},
		"an empty participant": {""}, "a participant that is too long": {strings.Repeat("p", domain.MaxAccount+1)}, "a participant that is a number": {1},
	} {
		j.refuses(what, m, func(s *specimen) { s.session["participants"] = participants })
	}
	j.accepts("as many participants as may be", m, func(s *specimen) { s.session["participants"] = everybody[:domain.MaxParticipants] })
	j.refuses("a type that there is not", m, func(s *specimen) { s.session["type"] = "chat" })
	j.refuses("a state that there is not", m, func(s *specimen) { s.session["state"] = "begun" })
	j.refuses("an id that is no UUID", m, func(s *specimen) { s.session["id"] = "7" })
	j.refuses("an id of chance alone", m, func(s *specimen) { s.session["id"] = "0192f5c6-3c00-4000-8000-000000000001" })
	j.accepts("an id from an Idempotency-Key", m, func(s *specimen) { s.session["id"] = "0192f5c6-3c00-8000-8000-000000000001" })
	j.refuses("a session of version 0", m, func(s *specimen) { s.session["version"] = 0 })
	j.accepts("a session with a member of a later version", m, func(s *specimen) { s.session["priority"] = map[string]any{"level": 1} })
	j.accepts("data with a member of a later version", m, func(s *specimen) { s.data["reason"] = "later" })
	if j.typ != domain.EventCreated {
		j.refuses("a session that was only created", m, func(s *specimen) {
			maps.DeleteFunc(s.session, func(field string, _ any) bool { return slices.Contains(stampFields(), field) })
			s.session["state"], s.session["version"] = "created", 1
		})
	}
}

// limit is how many characters a text may have, 0 for what is no text of the client's.
func limit(field string) int {
	switch {
	case field == "room":
		return domain.MaxRoom
	case strings.HasSuffix(field, "Reason"):
		return domain.MaxReason
	case strings.HasSuffix(field, "By"):
		return domain.MaxAccount
	}
	return 0
}

// attributes judges headers, and the attributes of the same event in JSON.
func (j *judge) attributes(m *envelope.Message) {
	first := m.Header[envelope.HeaderSessionVersion][0] == "1"
	keyed := m.Header[envelope.HeaderRequestKey] != nil
	mandatory := []string{
		envelope.HeaderSpecVersion, envelope.HeaderID, envelope.HeaderSource, envelope.HeaderType, envelope.HeaderSubject, envelope.HeaderTime,
		envelope.HeaderDataContentType, envelope.HeaderDataSchema, envelope.HeaderSessionVersion,
	}
	if !first {
		mandatory = append(mandatory, envelope.HeaderPrevious)
	}
	for _, name := range mandatory {
		attribute := strings.TrimPrefix(name, "ce-")
		j.refuses("no "+name, m, func(s *specimen) { delete(s.headers, name) })
		j.refuses(name+" in other letters", m, func(s *specimen) {
			s.headers[strings.ToUpper(name)] = s.headers[name]
			delete(s.headers, name)
		})
		j.refuses("a CloudEvent without "+attribute, m, func(s *specimen) { delete(s.cloudEvent, attribute) })
	}
	for name := range newSpecimen(j.t, m).headers {
		if strings.HasPrefix(name, "Nats-") {
			continue // the server's
		}
		for what, value := range map[string]string{"empty": "", "with a space": "a b", "with a quote": `a"b`, "not in ASCII": "ż", "with a bare percent sign": "50%"} {
			j.refuses(name+" "+what, m, func(s *specimen) { s.headers[name] = value })
		}
		if attribute, ok := strings.CutPrefix(name, "ce-"); ok {
			j.refuses("a CloudEvent with a wrong type of "+attribute, m, func(s *specimen) { s.cloudEvent[attribute] = []any{} })
		}
	}
	other := domain.EventStarted
	if j.typ == other {
		other = domain.EventAccepted
	}
	set := func(header, attribute, value string) {
		j.refuses(header+" "+value, m, func(s *specimen) { s.headers[header] = value })
		j.refuses("a CloudEvent with "+attribute+" "+value, m, func(s *specimen) { s.cloudEvent[attribute] = value })
	}
	set(envelope.HeaderType, "type", string(other))
	set(envelope.HeaderDataSchema, "dataschema", cloudevent.Schema(other))
	set(envelope.HeaderDataSchema, "dataschema", strings.Replace(cloudevent.Schema(j.typ), ".json", "/2.json", 1))
	set(envelope.HeaderSpecVersion, "specversion", "0.3")
	set(envelope.HeaderSource, "source", "/sessions")
	set(envelope.HeaderTime, "time", "2024-11-19T07:06:44Z")
	set(envelope.HeaderTime, "time", "2024-11-19T08:06:44.000+01:00")
	set(envelope.HeaderDataContentType, "datacontenttype", "application/xml")
	set(envelope.HeaderPrevious, "previous", "-1")
	j.refuses("a position that is a number", m, func(s *specimen) { s.cloudEvent["position"] = m.Sequence })
	j.refuses("no position", m, func(s *specimen) { delete(s.cloudEvent, "position") })
	j.refuses("position 0", m, func(s *specimen) { s.cloudEvent["position"] = "0" })
	j.refuses("a CloudEvent whose data is text", m, func(s *specimen) { s.cloudEvent["data"] = "{}" })
	if first {
		set(envelope.HeaderPrevious, "previous", "1")
	} else {
		j.accepts("an event in the middle of an atomic write", m, func(s *specimen) { s.headers[envelope.HeaderPrevious] = "0" })
	}
	if keyed {
		j.refuses("a key without a digest", m, func(s *specimen) { delete(s.headers, envelope.HeaderRequestDigest) })
		j.refuses("a digest without a key", m, func(s *specimen) { delete(s.headers, envelope.HeaderRequestKey) })
	}
	j.accepts("an extension of a later version", m, func(s *specimen) {
		s.headers["ce-tenant"], s.cloudEvent["tenant"] = "7", "7"
	})
}
