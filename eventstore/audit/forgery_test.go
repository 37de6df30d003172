package audit

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"chatsessions/domain"
	"chatsessions/eventstore"
	"chatsessions/eventstore/envelope"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

// A forgery is a copy of an honest log into which a defect is written.
type forgery struct {
	t    *testing.T
	msgs []*nats.Msg // ce-previous stands for an index among these, until they are published
	want []domain.Defect
}

// Sessions of the honest log, and where their events are: those of one in turns with
// those of the other, then one that was imported in one write.
const (
	accepted = "0192f5c6-3c00-7000-8000-00000000000a" // created, started, updated, accepted, corrected, finished
	rejected = "0192f5c6-3c00-7000-8000-00000000000b" // created, started, updated, rejected, corrected, finished
	imported = "0192f5c6-3c00-7000-8000-00000000000c" // created, started, accepted, finished
)

// at is the index of the n-th event of a session, from 1 on.
func (f *forgery) at(id string, n int) int {
	for i, m := range f.msgs {
		if m.Subject == envelope.Subject(id) {
			if n--; n == 0 {
				return i
			}
		}
	}
	f.t.Fatalf("session %s has no such event", id)
	return 0
}

// edit changes the data of the n-th event of a session.
func (f *forgery) edit(id string, n int, change func(changes, session map[string]any)) {
	f.t.Helper()
	m := f.msgs[f.at(id, n)]
	var data struct {
		Changes map[string]any `json:"changes"`
		Session map[string]any `json:"session"`
	}
	if err := json.Unmarshal(m.Data, &data); err != nil {
		f.t.Fatal(err)
	}
	change(data.Changes, data.Session)
	var err error
	if m.Data, err = json.Marshal(data); err != nil {
		f.t.Fatal(err)
	}
}

// editFrom sets members in an event, its changes included, and in the sessions of those
// that follow it.
func (f *forgery) editFrom(id string, n int, members map[string]any) {
	f.t.Helper()
	f.edit(id, n, func(changes, session map[string]any) { maps.Copy(changes, members); maps.Copy(session, members) })
	for later := n + 1; later <= 6; later++ {
		f.edit(id, later, func(_, session map[string]any) { maps.Copy(session, members) })
	}
}

// insert puts a message into the log, in front of the one at an index.
func (f *forgery) insert(at int, m *nats.Msg) {
	f.msgs = slices.Insert(f.msgs, at, m)
	for i, other := range f.msgs {
		if p := f.previous(i); p >= at && other != m {
			f.point(i, p+1)
		}
	}
}

// remove takes a message out of the log. What follows it leads to the one before it.
func (f *forgery) remove(at int) {
	before := f.previous(at)
	f.msgs = slices.Delete(f.msgs, at, at+1)
	for i := range f.msgs {
		switch p := f.previous(i); {
		case p == at:
			f.point(i, before)
		case p > at:
			f.point(i, p-1)
		}
	}
}

// previous is the index to which ce-previous leads, -1 for none.
func (f *forgery) previous(i int) int {
	p, err := strconv.Atoi(f.msgs[i].Header.Get(envelope.HeaderPrevious))
	if err != nil {
		return -1
	}
	return p - 1
}

// point has ce-previous lead to an index.
func (f *forgery) point(i, to int) { f.msgs[i].Header.Set(envelope.HeaderPrevious, strconv.Itoa(to+1)) }

// like is a copy of the n-th event of a session, as another event.
func (f *forgery) like(id string, n int) *nats.Msg {
	m := f.msgs[f.at(id, n)]
	c := &nats.Msg{Subject: m.Subject, Header: nats.Header{}, Data: slices.Clone(m.Data)}
	for name, values := range m.Header {
		c.Header[name] = slices.Clone(values)
	}
	c.Header.Set(envelope.HeaderID, uuid.Must(uuid.NewV7()).String())
	return c
}

// expect notes what a verification has to say of the message at an index.
func (f *forgery) expect(kind domain.DefectKind, i int, says string) {
	id := strings.TrimPrefix(f.msgs[i].Subject, envelope.SubjectPrefix)
	f.want = append(f.want, domain.Defect{Kind: kind, SessionID: id, Position: uint64(i + 1), Detail: says})
}

// spoil makes the n-th message of a session one that is no event, and returns the index
// of the one that follows.
func (f *forgery) spoil(id string, n int) int {
	i := f.at(id, n)
	f.msgs[i].Data = []byte("{")
	f.expect(domain.DefectUnreadable, i, "data")
	return f.at(id, n+1)
}

// version gives the n-th event of a session another version.
func (f *forgery) version(id string, n, version int) {
	f.msgs[f.at(id, n)].Header.Set(envelope.HeaderSessionVersion, strconv.Itoa(version))
	f.edit(id, n, func(changes, session map[string]any) { changes["version"], session["version"] = version, version })
}

// forgeries are the defects. What is expected is all that is said: where one defect
// makes another one follow, that is said there.
var forgeries = map[string]func(f *forgery){
	"an honest copy": func(*forgery) {},
	"data that is no event": func(f *forgery) {
		i := f.at(accepted, 3)
		f.msgs[i].Data = []byte("{")
		f.expect(domain.DefectUnreadable, i, "data")
	},
	"another version in the envelope": func(f *forgery) {
		i := f.at(accepted, 3)
		f.msgs[i].Header.Set(envelope.HeaderSessionVersion, "7")
		f.expect(domain.DefectUnreadable, i, "the session has version 3")
	},
	"another session in the envelope": func(f *forgery) {
		i := f.at(accepted, 6)
		f.msgs[i].Header.Set(envelope.HeaderSubject, rejected)
		f.expect(domain.DefectUnreadable, i, rejected)
	},
	"an event on another session's subject": func(f *forgery) {
		i := f.at(accepted, 6)
		f.msgs[i].Subject = envelope.Subject(rejected)
		f.expect(domain.DefectUnreadable, i, "on subject")
	},
	"a stranger's message between two events": func(f *forgery) {
		i := f.at(accepted, 4)
		f.insert(i, &nats.Msg{Subject: envelope.Subject(accepted), Header: nats.Header{}, Data: []byte("hello")})
		f.expect(domain.DefectUnreadable, i, "")
	},
	"a stranger's message on no session's subject": func(f *forgery) {
		f.insert(2, &nats.Msg{Subject: envelope.Subject("nobody"), Header: nats.Header{}, Data: []byte("hello")})
		f.expect(domain.DefectUnreadable, 2, "")
	},
	"another time in the envelope": func(f *forgery) {
		i := f.at(accepted, 3)
		f.msgs[i].Header.Set(envelope.HeaderTime, "2020-01-01T00:00:00.000Z")
		f.expect(domain.DefectEnvelope, i, "ce-time")
	},
	"another source": func(f *forgery) {
		i := f.at(accepted, 3)
		f.msgs[i].Header.Set(envelope.HeaderSource, "/elsewhere")
		f.expect(domain.DefectEnvelope, i, `ce-source is "/elsewhere"`)
	},
	"an id that is none": func(f *forgery) {
		i := f.at(accepted, 3)
		f.msgs[i].Header.Set(envelope.HeaderID, "1")
		f.expect(domain.DefectEnvelope, i, "UUIDv7")
	},
	"nobody who did it": func(f *forgery) {
		i := f.at(accepted, 3)
		f.msgs[i].Header.Del(envelope.HeaderActor)
		f.expect(domain.DefectEnvelope, i, "ce-actor")
	},
	"an event that was taken out": func(f *forgery) {
		f.remove(f.at(accepted, 3))
		f.expect(domain.DefectVersionGap, f.at(accepted, 3), "version 4 follows version 2")
	},
	"the first event taken out": func(f *forgery) {
		// The version-gap needs an event before: what follows leads to a position of somebody else.
		i := f.at(rejected, 1)
		f.remove(i)
		f.point(f.at(rejected, 1), 0)
		f.expect(domain.DefectPrevious, f.at(rejected, 1), "an event of session "+accepted)
	},
	"an event written twice": func(f *forgery) {
		m := f.like(accepted, 6)
		f.insert(len(f.msgs), m)
		f.point(len(f.msgs)-1, f.at(accepted, 6))
		f.expect(domain.DefectVersionRepeated, len(f.msgs)-1, "version 6 follows version 6")
	},
	"a session created twice": func(f *forgery) {
		f.insert(f.at(accepted, 4), f.like(accepted, 1))
		f.expect(domain.DefectVersionRepeated, f.at(accepted, 4), "version 1 follows version 3")
	},
	"a session created twice, at the end": func(f *forgery) {
		f.insert(len(f.msgs), f.like(accepted, 1))
		f.expect(domain.DefectVersionRepeated, len(f.msgs)-1, "version 1 follows version 6")
	},
	"a session created twice, behind a stranger's message": func(f *forgery) {
		end := len(f.msgs)
		f.insert(end, &nats.Msg{Subject: envelope.Subject(accepted), Header: nats.Header{}, Data: []byte("hello")})
		f.insert(end+1, f.like(accepted, 1))
		f.expect(domain.DefectUnreadable, end, "")
		f.expect(domain.DefectVersionRepeated, end+1, "version 1 follows version 6")
	},
	"a session created twice, behind more than are passed over": func(f *forgery) {
		for range maxUnreadable {
			f.insert(len(f.msgs), &nats.Msg{Subject: envelope.Subject(accepted), Header: nats.Header{}, Data: []byte("hello")})
			f.expect(domain.DefectUnreadable, len(f.msgs)-1, "")
		}
		f.insert(len(f.msgs), f.like(accepted, 1))
		f.expect(domain.DefectVersionRepeated, len(f.msgs)-1, "")
	},
	"two that are no events, and an event behind them": func(f *forgery) {
		for n := 4; n <= 5; n++ {
			f.spoil(accepted, n)
		}
	},
	"a version that comes again behind what is no event": func(f *forgery) {
		i := f.spoil(accepted, 5)
		f.version(accepted, 6, 4)
		f.expect(domain.DefectVersionRepeated, i, "version 4 follows version 4")
	},
	"a version-gap behind what is no event": func(f *forgery) {
		i := f.spoil(accepted, 5)
		f.version(accepted, 6, 7)
		f.expect(domain.DefectVersionGap, i, "version 7 follows version 4")
	},
	"another creator behind what is no event": func(f *forgery) {
		i := f.spoil(accepted, 5)
		f.edit(accepted, 6, func(changes, session map[string]any) { changes["createdBy"], session["createdBy"] = "eve", "eve" })
		f.expect(domain.DefectImmutable, i, `"pat" to "eve"`)
	},
	"a time that runs backwards behind what is no event": func(f *forgery) {
		i := f.spoil(accepted, 5)
		f.edit(accepted, 6, func(changes, session map[string]any) { changes["updatedAt"], session["updatedAt"] = 5, 5 })
		f.msgs[i].Header.Set(envelope.HeaderTime, time.UnixMilli(5).UTC().Format(domain.TimeFormat))
		f.expect(domain.DefectTime, i, "updatedAt (5)")
	},
	"two events that follow what is no event": func(f *forgery) {
		f.spoil(accepted, 5)
		f.insert(len(f.msgs), f.like(accepted, 6))
		f.expect(domain.DefectVersionRepeated, len(f.msgs)-1, "version 6 follows version 6")
	},
	"ce-previous leads to what is no event, with one in between": func(f *forgery) {
		f.spoil(accepted, 4)
		i := f.at(accepted, 6)
		f.point(i, f.at(accepted, 4))
		f.expect(domain.DefectPrevious, i, fmt.Sprintf("a message that is not an event, and the session's event before is at %d", f.at(accepted, 5)+1))
	},
	"ce-previous leads to another session": func(f *forgery) {
		i := f.at(accepted, 4)
		f.point(i, f.at(rejected, 3))
		f.expect(domain.DefectPrevious, i, "an event of session "+rejected)
	},
	"ce-previous leads to an older event": func(f *forgery) {
		i := f.at(accepted, 4)
		f.point(i, f.at(accepted, 1))
		f.expect(domain.DefectPrevious, i, fmt.Sprintf("version 1 of the session, and the session's event before is at %d", f.at(accepted, 3)+1))
	},
	"ce-previous leads to the message before, as in an atomic write": func(f *forgery) {
		i := f.at(imported, 2)
		f.msgs[i].Header.Set(envelope.HeaderPrevious, "0")
		f.expect(domain.DefectPrevious, i, "ce-previous is 0, and the message before is not part of the same atomic write")
	},
	"two events that follow the same": func(f *forgery) {
		m := f.like(accepted, 3)
		i := f.at(accepted, 4)
		f.insert(i, m)
		f.expect(domain.DefectFork, i, fmt.Sprintf("which the event at %d follows already", f.at(accepted, 3)+1))
	},
	"two events that follow the same, at the end": func(f *forgery) {
		f.insert(len(f.msgs), f.like(accepted, 3))
		f.expect(domain.DefectFork, len(f.msgs)-1, fmt.Sprintf("which the event at %d follows already", f.at(accepted, 3)+1))
	},
	"changes that do not lead to the session": func(f *forgery) {
		i := f.at(accepted, 4)
		f.edit(accepted, 4, func(_, session map[string]any) { session["acceptedBy"] = "eve" })
		f.expect(domain.DefectChanges, i, `acceptedBy "doc", but the session has "eve"`)
	},
	"a change that was kept out of the changes for good": func(f *forgery) {
		i := f.at(accepted, 4)
		for n := 4; n <= 6; n++ {
			f.edit(accepted, n, func(_, session map[string]any) { session["room"] = "elsewhere" })
		}
		f.expect(domain.DefectChanges, i, `room`)
	},
	"an illegal transition": func(f *forgery) {
		// Accepted while it was only created: the start is taken out, and what follows
		// knows nothing of it.
		f.remove(f.at(accepted, 2))
		for n := 2; n <= 5; n++ {
			f.msgs[f.at(accepted, n)].Header.Set(envelope.HeaderSessionVersion, strconv.Itoa(n))
			f.edit(accepted, n, func(changes, session map[string]any) {
				for _, m := range []map[string]any{changes, session} {
					delete(m, "startedAt")
					delete(m, "startedBy")
					m["version"] = n
				}
				if session["state"] == "started" {
					session["state"] = "created"
				}
			})
		}
		f.expect(domain.DefectTransition, f.at(accepted, 3), "accept is not possible: the session is created")
	},
	"a time of recording that runs backwards": func(f *forgery) {
		i := f.at(accepted, 6)
		f.edit(accepted, 6, func(changes, session map[string]any) { changes["updatedAt"], session["updatedAt"] = 5, 5 })
		f.msgs[i].Header.Set(envelope.HeaderTime, time.UnixMilli(5).UTC().Format(domain.TimeFormat))
		f.expect(domain.DefectTime, i, "updatedAt (5)")
		f.expect(domain.DefectTime, i, "more than 5 minutes after its recording") // follows: the finish was stamped later
	},
	"stamps out of order": func(f *forgery) {
		f.editFrom(accepted, 4, map[string]any{"acceptedAt": 7})
		f.expect(domain.DefectTime, f.at(accepted, 4), "acceptedAt (7)")
	},
	"another creator": func(f *forgery) {
		f.editFrom(accepted, 3, map[string]any{"createdBy": "eve"})
		f.expect(domain.DefectImmutable, f.at(accepted, 3), `"pat" to "eve"`)
	},
	"an update that changes a stamp": func(f *forgery) {
		f.editFrom(accepted, 3, map[string]any{"startedBy": "eve"})
		f.expect(domain.DefectFields, f.at(accepted, 3), "the stamp of start")
	},
}

// copied returns copies of the messages.
func copied(msgs []*nats.Msg) []*nats.Msg {
	all := make([]*nats.Msg, len(msgs))
	for i, m := range msgs {
		all[i] = &nats.Msg{Subject: m.Subject, Header: nats.Header{}, Data: slices.Clone(m.Data)}
		for name, values := range m.Header {
			all[i].Header[name] = slices.Clone(values)
		}
	}
	return all
}

// honestLog writes a log and returns its messages, to be published again one by one.
func honestLog(t *testing.T, nc *nats.Conn) []*nats.Msg {
	t.Helper()
	l, err := eventstore.Open(t.Context(), nc, eventstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	now := int64(1732000000000)
	write := func(id string, decide func(s domain.Session) domain.Command) {
		now += 1000
		_, err := l.Transact(t.Context(), domain.Request{SessionID: id, Actor: "pat", CorrelationID: "c"}, func(s domain.Session) ([]domain.Event, error) {
			return domain.Decide(s, decide(s))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	crm := domain.Caller{Account: "pat", Role: domain.RoleService}
	doc := domain.Caller{Account: "doc", Role: domain.RoleService}
	create := func(id string) func(domain.Session) domain.Command {
		return func(domain.Session) domain.Command { return domain.Create{ID: id, By: crm, Now: now} }
	}
	directive := func(tr domain.Transition) func(domain.Session) domain.Command {
		return func(domain.Session) domain.Command {
			c := domain.Change{By: doc, Now: now}
			c.Directives[tr].Asked = true
			return c
		}
	}
	update := func(domain.Session) domain.Command {
		return domain.Change{By: crm, Now: now, Values: domain.Values{Room: new("consultation")}}
	}
	correct := func(s domain.Session) domain.Command {
		c := domain.Change{By: crm, Now: now}
		c.Values.Stamps[domain.Start].At = new(s.Stamps[domain.Start].At - 1)
		return c
	}
	for step := range 6 {
		for _, id := range []string{accepted, rejected} {
			middle := domain.Accept
			if id == rejected {
				middle = domain.Reject
			}
			write(id, []func(domain.Session) domain.Command{create(id), directive(domain.Start), update, directive(middle), correct, directive(domain.Finish)}[step])
		}
	}
	write(imported, func(domain.Session) domain.Command {
		c := domain.Create{ID: imported, By: crm, Now: now}
		for _, tr := range []domain.Transition{domain.Start, domain.Accept, domain.Finish} {
			c.Values.Stamps[tr].At = new(now)
		}
		return c
	})
	for _, memory := range memories {
		if defects, _ := defectsOf(t, l, memory); len(defects) > 0 {
			t.Fatalf("the honest log: %+v", defects)
		}
	}
	var all []*nats.Msg
	err = l.ReadMessages(t.Context(), 16, 100, func(msgs []*envelope.Message) error {
		for _, m := range msgs {
			for _, name := range []string{
				jetstreamext.BatchIDHeader, jetstreamext.BatchSeqHeader, jetstreamext.BatchCommitHeader,
				jetstream.ExpectedLastSubjSeqHeader,
			} {
				m.Header.Del(name)
			}
			if m.Header.Get(envelope.HeaderPrevious) == "0" { // the message just before
				m.Header.Set(envelope.HeaderPrevious, strconv.FormatUint(m.Sequence-1, 10))
			}
			all = append(all, &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data})
		}
		return nil
	})
	if err != nil || len(all) != 16 {
		t.Fatalf("%d messages, %v", len(all), err)
	}
	return all
}
