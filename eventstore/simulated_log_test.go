package eventstore

import (
	"chatsessions/eventstore/envelope"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

// A simulatedLog is a JetStream server, or three, with the log's stream: as far as
// the command path sees them, and answering as nats-server 2.15 does (stream.go,
// jetstream_batching.go, jetstream_cluster.go). A replicated one has a leader that
// proposes what it accepts, and commits it when a quorum has it.
type simulatedLog struct {
	world     *world
	entries   []*entry // what is written; entry n has sequence n+1
	proposals []*proposal
	staged    map[string]*stagedBatch
	busy      bool // takes no new batches
	away      bool // no leader, or no server

	deposed *deposition // the latest, while its leader may still answer

	synced uint64 // up to here it is on disk, where there is a barrier
	broken bool   // a sync has failed
	lives  int    // how often the power was cut
}

// A deposition is when a leader was replaced, and how many entries it had.
type deposition struct {
	at  time.Time
	end int
}

// An entry is a message in the log.
type entry struct {
	subject  string
	sequence uint64
	header   nats.Header
	raw      []byte // the header as it is on the wire
	data     []byte
	at       time.Time // when it was written
	last     bool      // of its write
}

// A proposal is a write that the leader has accepted and that a quorum does not
// have yet.
type proposal struct {
	msgs    []*nats.Msg
	request *request
	at      time.Time // when a quorum will have it
	decided bool
}

type stagedBatch struct {
	msgs    []*nats.Msg
	deposed bool // it is with a leader that was replaced
	until   time.Time
}

// batchTimeout is when the server forgets a batch that does not go on.
const batchTimeout = 10 * time.Second

// arrive handles a message that has reached the servers.
func (s *simulatedLog) arrive(r *request) {
	w := s.world
	subject := r.msg.Subject
	direct := strings.HasPrefix(subject, "$JS.API.DIRECT.GET.")
	batched := r.msg.Header.Get(jetstreamext.BatchIDHeader) != ""
	r.deposed = r.conn.deposed && (batched || w.chance(70))
	if s.away && !r.deposed && (!direct || !w.faults.replicated) {
		switch {
		case w.chance(30): // whoever has it does not answer
		case w.chance(50) && strings.HasPrefix(subject, "$JS.API.") && !direct:
			s.fail(r, 503, []jetstream.ErrorCode{codeClusterNotAvail, codeClusterNotLeader, codeNoPeers}[w.rng.IntN(3)])
		default:
			r.respond(answer{err: nats.ErrNoResponders, what: "no responders"})
		}
		return
	}
	switch {
	case direct:
		s.directGet(r)
	case subject == "$JS.API.STREAM.MSG.GET."+StreamName:
		s.leaderGet(r)
	case subject == "$JS.API.STREAM.INFO."+StreamName:
		r.respond(jsonAnswer("the end", map[string]any{"created": w.begin, "state": map[string]any{"last_seq": len(s.entries)}}))
	case batched:
		s.stage(r)
	case strings.HasPrefix(subject, envelope.SubjectPrefix):
		s.publish([]*nats.Msg{r.msg}, r)
	default:
		panic("nobody listens to " + subject)
	}
}

// stage keeps a message of a batch until the last one commits it.
func (s *simulatedLog) stage(r *request) {
	h := r.msg.Header
	id := h.Get(jetstreamext.BatchIDHeader)
	n, err := strconv.Atoi(h.Get(jetstreamext.BatchSeqHeader))
	if err != nil {
		panic(err)
	}
	b := s.staged[id]
	switch {
	case b == nil && n == 1 && s.busy:
		s.world.count("batch turned away")
		s.fail(r, 429, codeTooManyBatches)
		return
	case b == nil && n == 1:
		b = &stagedBatch{deposed: r.deposed}
		s.staged[id] = b
	case b == nil || n != len(b.msgs)+1 || b.deposed != r.deposed || time.Now().After(b.until):
		delete(s.staged, id)
		s.world.count("batch incomplete")
		s.fail(r, 400, codeBatchIncomplete)
		return
	}
	b.msgs, b.until = append(b.msgs, r.msg), time.Now().Add(batchTimeout)
	if h.Get(jetstreamext.BatchCommitHeader) == "1" {
		delete(s.staged, id)
		s.publish(b.msgs, r)
	}
}

// publish checks a write of one or more messages, and writes or proposes it.
func (s *simulatedLog) publish(msgs []*nats.Msg, r *request) {
	w := s.world
	subject := msgs[0].Subject
	inFlight := func(p *proposal) bool { return p.msgs[0].Subject == subject }
	if !r.deposed && slices.ContainsFunc(s.proposals, inFlight) {
		w.count("conflict with a write in flight")
		s.fail(r, 400, codeWrongLastConstant)
		return
	}
	if !s.expected(msgs, r) {
		w.count("conflict")
		code := codeWrongLast
		if w.faults.constant {
			code = codeWrongLastConstant
		}
		s.fail(r, 400, code)
		return
	}
	if !r.deposed && w.hit(w.faults.serverFails, "server fails while it writes") {
		w.after(w.skewed(10*time.Microsecond, 5*time.Millisecond), w.failServer)
	}
	switch {
	case r.deposed:
		w.count("accepted by a deposed leader") // which finds no quorum for it
		return
	case w.hit(w.faults.resources, "insufficient resources"):
		s.fail(r, 503, 10023)
		return
	case w.faults.replicated:
		s.propose(msgs, r)
	case w.hit(w.faults.storeFails, "store failed"):
		if w.chance(50) {
			s.write(msgs)
		}
		s.fail(r, 503, codeStoreFailed)
		return
	default:
		s.acknowledge(r, s.write(msgs), len(msgs))
	}
	if w.hit(w.faults.requestTwice, "request arrives twice") {
		w.after(w.skewed(10*time.Microsecond, 3*time.Second), func() {
			if !s.away {
				s.publish(msgs, r)
			}
		})
	}
}

// expected says whether the subject is where the write expects it to be.
func (s *simulatedLog) expected(msgs []*nats.Msg, r *request) bool {
	var newest uint64
	if e := last(s.known(r), msgs[0].Subject); e != nil {
		newest = e.sequence
	}
	for i, m := range msgs {
		expected, ok := m.Header[jetstream.ExpectedLastSubjSeqHeader]
		// In a batch it is allowed on the first message to a subject only.
		if ok && (i > 0 || expected[0] != strconv.FormatUint(newest, 10)) {
			return false
		}
	}
	return true
}

func (s *simulatedLog) propose(msgs []*nats.Msg, r *request) {
	w := s.world
	delay := w.between(200*time.Microsecond, 5*time.Millisecond)
	if w.hit(w.faults.quorumSlow, "slow quorum") {
		delay = w.skewed(300*time.Millisecond, 15*time.Second)
	}
	if n := len(s.proposals); n > 0 { // a quorum has them in their order
		delay = max(delay, time.Until(s.proposals[n-1].at)+time.Microsecond)
	}
	p := &proposal{msgs: msgs, request: r, at: time.Now().Add(delay)}
	s.proposals = append(s.proposals, p)
	w.after(delay, func() {
		if p.decided {
			return
		}
		p.decided = true
		s.proposals = slices.DeleteFunc(s.proposals, func(q *proposal) bool { return q == p })
		s.acknowledge(r, s.write(msgs), len(msgs))
	})
}

// write appends messages to the log and returns the sequence of the last.
func (s *simulatedLog) write(msgs []*nats.Msg) uint64 {
	for i, m := range msgs {
		e := &entry{
			subject: m.Subject, sequence: uint64(len(s.entries) + 1), header: m.Header, raw: rawHeader(m.Header),
			data: m.Data, at: time.Now(), last: i == len(msgs)-1,
		}
		s.entries = append(s.entries, e)
		s.world.note("the log has event %d: %s version %s", e.sequence, e.header.Get(envelope.HeaderCorrelationID), e.header.Get(envelope.HeaderSessionVersion))
	}
	return uint64(len(s.entries))
}

// acknowledge answers a write byte by byte as the server does.
func (s *simulatedLog) acknowledge(r *request, sequence uint64, messages int) {
	ack := fmt.Sprintf(`{"stream":%q,"seq":%d`, StreamName, sequence)
	if messages > 1 {
		ack += fmt.Sprintf(`,"batch":%q,"count":%d`, r.msg.Header.Get(jetstreamext.BatchIDHeader), messages)
	}
	r.respond(answer{msg: &nats.Msg{Data: []byte(ack + "}")}, what: fmt.Sprint("acknowledged ", sequence)})
}

func (s *simulatedLog) fail(r *request, status int, code jetstream.ErrorCode) {
	r.respond(jsonAnswer(fmt.Sprint("error ", code), map[string]any{
		"error": jetstream.APIError{Code: status, ErrorCode: code, Description: "simulated"}, "stream": StreamName, "seq": 0,
	}))
}

// known is what the leader that a request has reached knows.
func (s *simulatedLog) known(r *request) []*entry {
	if r.deposed {
		return s.entries[:s.deposed.end]
	}
	return s.entries
}

// leaderGet answers STREAM.MSG.GET. A leader that was replaced answers too, until
// it knows.
func (s *simulatedLog) leaderGet(r *request) {
	if r.deposed {
		s.world.count("read from a deposed leader")
		r.by = s.deposed
	}
	e := s.find(s.known(r), r.msg.Data)
	if e == nil {
		s.fail(r, 404, codeNoMessageFound)
		return
	}
	r.respond(jsonAnswer(fmt.Sprint("event ", e.sequence), map[string]any{"message": map[string]any{
		"subject": e.subject, "seq": e.sequence, "hdrs": e.raw, "data": e.data, "time": e.at,
	}}))
}

// directGet answers DIRECT.GET, by any replica.
func (s *simulatedLog) directGet(r *request) {
	known := s.known(r)
	if s.world.faults.replicated && s.world.hit(s.world.faults.replicaLags, "read from a replica that lags") {
		for range 1 + s.world.rng.IntN(4) { // it applies a batch as one
			for len(known) > 0 {
				known = known[:len(known)-1]
				if n := len(known); n == 0 || known[n-1].last {
					break
				}
			}
		}
	}
	e := s.find(known, r.msg.Data)
	if e == nil {
		r.respond(answer{msg: &nats.Msg{Header: nats.Header{"Status": {"404"}, "Description": {"Message Not Found"}}}, what: "nothing"})
		return
	}
	h := maps.Clone(e.header)
	h.Set(jetstream.StreamHeader, StreamName)
	h.Set(jetstream.SubjectHeader, e.subject)
	h.Set(jetstream.SequenceHeader, strconv.FormatUint(e.sequence, 10))
	r.respond(answer{msg: &nats.Msg{Header: h, Data: e.data}, what: fmt.Sprint("event ", e.sequence)})
}

func (s *simulatedLog) find(known []*entry, request []byte) *entry {
	var get struct {
		Sequence uint64 `json:"seq"`
		LastFor  string `json:"last_by_subj"`
		NextFor  string `json:"next_by_subj"`
	}
	if err := json.Unmarshal(request, &get); err != nil {
		panic(err)
	}
	switch {
	case get.LastFor != "":
		return last(known, get.LastFor)
	case get.Sequence > uint64(len(known)):
		return nil
	case get.NextFor != "":
		for _, e := range known[get.Sequence-1:] {
			if e.subject == get.NextFor {
				return e
			}
		}
		return nil
	}
	return known[get.Sequence-1]
}

func last(known []*entry, subject string) *entry {
	for _, e := range slices.Backward(known) {
		if e.subject == subject {
			return e
		}
	}
	return nil
}

func jsonAnswer(what string, v any) answer {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return answer{msg: &nats.Msg{Data: data}, what: what}
}

func rawHeader(h nats.Header) []byte {
	raw := []byte("NATS/1.0\r\n")
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, value := range h[name] {
			raw = append(raw, name+": "+value+"\r\n"...)
		}
	}
	return append(raw, "\r\n"...)
}
