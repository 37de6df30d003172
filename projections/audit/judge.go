package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"chatsessions/domain"
	"chatsessions/projections/layout"
)

// maxSuspects is how many suspects are collected before they are judged.
const maxSuspects = 1000

// A suspect is a possible difference: a session with its document and all entries that it
// should have, or with a member one index entry that it perhaps should not have.
type suspect struct{ id, index, member string }

// suspect adds a suspect.
func (p *partition) suspect(ctx context.Context, s suspect) error {
	p.suspects[s] = struct{}{}
	if len(p.suspects) < maxSuspects {
		return nil
	}
	return p.resolve(ctx)
}

// resolve judges suspects, each once the read model has the session's newest event.
func (p *partition) resolve(ctx context.Context) error {
	for s := range p.suspects {
		for upTo := uint64(0); ; {
			var err error
			if upTo, err = p.judge(ctx, s, upTo); err != nil {
				return fmt.Errorf("session %s: %w", s.id, err)
			}
			if upTo == 0 {
				break
			}
			if err := p.reach(ctx, upTo); err != nil {
				return err
			}
		}
	}
	clear(p.suspects)
	return nil
}

// judge compares the log with what the read model holds, as of one moment, and reports
// what differs. It returns 0 then, or the position that the read model has to reach first.
// upTo is what it returned for the suspect before.
func (p *partition) judge(ctx context.Context, s suspect, upTo uint64) (uint64, error) {
	newest, expected, err := p.expect(ctx, s.id)
	if err != nil {
		return 0, err
	}
	if upTo == 0 && newest.Err != nil { // the position of an unreadable message is unknown
		if upTo, err = p.audit.log.End(ctx); err != nil {
			return 0, err
		}
	}
	found, err := p.readStored(ctx, s, expected)
	if err != nil {
		return 0, err
	}
	position := newest.Record.Position
	if upTo = max(upTo, position); upTo > found.reached {
		if p.behind {
			return 0, nil
		}
		return upTo, nil
	}
	if found.document != nil && found.document.Position > position {
		// The log may have been asked too early.
		again, _, err := p.expect(ctx, s.id)
		if err != nil || again.Record.Position > position {
			return again.Record.Position, err
		}
	}
	report := func(index, format string, args ...any) error {
		return p.audit.report(Difference{SessionID: s.id, Index: index, Position: position, Detail: fmt.Sprintf(format, args...)})
	}
	switch {
	case s.member != "":
		belongs := expected != nil && expected.Entries.Member == s.member && expected.Entries.IsIn(s.index)
		if _, there := found.scores[s.index]; there && !belongs {
			return 0, report(s.index, "the index has the session, which does not belong there")
		}
		return 0, nil
	case expected != nil:
		return 0, judgeShown(found, expected, report)
	case newest.Err != nil:
		return 0, p.judgeParked(s.id, found, newest, report)
	}
	return 0, p.judgeAbsent(ctx, s.id, found, report)
}

// judgeShown judges a session that has to be shown.
func judgeShown(found *storedState, expected *layout.Document, report func(index, format string, args ...any) error) (err error) {
	switch {
	case found.damaged != nil:
		err = report("", "the document cannot be read: %v", found.damaged)
	case found.text == "" && found.parked != "":
		return report("", "the session is parked, and could be shown: %s", found.parked)
	case found.text == "":
		err = report("", "the session is missing")
	case found.document.Position != expected.Position:
		err = report("", "the document is of position %d", found.document.Position)
	case found.text != string(expected.Value):
		err = report("", "the document differs: %s", differing(found.document, expected))
	case found.parked != "":
		err = report("", "the session is shown, and noted as parked: %s", found.parked)
	}
	for index := range expected.Entries.Indexes() {
		if err != nil {
			break
		}
		score, there := found.scores[index]
		switch {
		case !there:
			err = report(index, "the index lacks the session")
		case score != 0:
			err = report(index, "the index has the session with score %v, so it is out of order", score)
		}
	}
	return err
}

// judgeParked judges a session whose newest event cannot be projected.
func (p *partition) judgeParked(id string, found *storedState, newest domain.Entry, report func(index, format string, args ...any) error) error {
	switch {
	case found.text != "":
		return report("", "the session is shown, and its newest event cannot be projected: %v", newest.Err)
	case found.parked == "":
		return report("", "the session is not parked, and its newest event cannot be projected: %v", newest.Err)
	}
	parked, err := layout.ParseParked(found.parked)
	switch {
	case err != nil:
		return report("", "the note of the parked session cannot be read: %v", err)
	case parked.SessionID != id:
		return report("", "the note of the parked session is of another one, %q", parked.SessionID)
	}
	// The log has the reason, and the position unless the message is unreadable.
	known := layout.Parked{SessionID: id, Position: newest.Record.Position, Reason: newest.Err.Error()}
	if known.Position == 0 {
		known.Position = parked.Position
	}
	return p.audit.reportParked(known)
}

// judgeAbsent judges a session that is not in the log.
func (p *partition) judgeAbsent(ctx context.Context, id string, found *storedState, report func(index, format string, args ...any) error) error {
	switch {
	case found.text == "" && found.parked == "":
		return nil
	case found.text == "":
		return report("", "the session is noted as parked, and not in the log")
	}
	if err := report("", "the session is not in the log"); err != nil {
		return err
	}
	if found.document == nil || layout.MemberID(found.document.Entries.Member) != id { // a copy of another session's document
		return nil
	}
	for index := range found.document.Entries.Indexes() { // which match the document, so they are not suspect yet
		if _, err := p.judge(ctx, suspect{id, index, found.document.Entries.Member}, 0); err != nil {
			return err
		}
	}
	return nil
}

// expect asks the log for a session's newest event, and returns the document that the read
// model has to hold of it: nil where the session is not in the log, at position 0, and
// where it has to be parked, with the entry's Err.
func (p *partition) expect(ctx context.Context, id string) (domain.Entry, *layout.Document, error) {
	absent := domain.Entry{Record: &domain.Record{}}
	if layout.PartitionNumber(id, p.keys.Partition.Count) != p.keys.Partition.Number {
		return absent, nil, nil
	}
	record, err := p.audit.log.Load(ctx, id)
	switch {
	case errors.Is(err, domain.ErrNotFound):
		return absent, nil, nil
	case errors.Is(err, domain.ErrUnreadable):
		absent.Err = err
		return absent, nil, nil
	case err != nil:
		return absent, nil, err
	}
	newest := domain.Entry{Record: record}
	var expected *layout.Document
	expected, newest.Err = documentOf(&newest)
	return newest, expected, nil
}

// A storedState is what the read model has of a session, as of one moment.
type storedState struct {
	reached  uint64 // position of the read model
	text     string // the document, "" for none
	document *layout.Stored
	damaged  error
	parked   string             // the note that it is parked, "" for none
	scores   map[string]float64 // by index, of the entries that are there
}

// readStored reads what the read model has of a session, in one transaction.
func (p *partition) readStored(ctx context.Context, s suspect, expected *layout.Document) (*storedState, error) {
	trip := p.audit.rdb.TxPipeline()
	at := trip.Get(ctx, p.keys.Partition.Checkpoint())
	text := trip.Get(ctx, p.keys.Document(s.id))
	parked := trip.HGet(ctx, p.keys.Parked(), s.id)
	scores := map[string]*redis.FloatCmd{}
	if s.member != "" {
		scores[s.index] = trip.ZScore(ctx, p.keys.Index(s.index), s.member)
	} else if expected != nil {
		for index := range expected.Entries.Indexes() {
			scores[index] = trip.ZScore(ctx, p.keys.Index(index), expected.Entries.Member)
		}
	}
	if _, err := trip.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) && !isWrongType(err) {
		return nil, err
	}
	c, err := p.parse(at.Val())
	if err != nil {
		return nil, err
	}
	found := &storedState{reached: c.Position, text: text.Val(), parked: parked.Val(), scores: map[string]float64{}}
	if isWrongType(text.Err()) {
		found.damaged = errors.New("its key is not of its kind")
	} else if found.text != "" {
		found.document, found.damaged = layout.DecodeDocument(found.text)
	}
	for index, score := range scores {
		if score.Err() == nil {
			found.scores[index] = score.Val()
		}
	}
	return found, nil
}

// differing describes how a document differs from the one expected.
func differing(found *layout.Stored, expected *layout.Document) string {
	want, err := layout.DecodeDocument(string(expected.Value))
	if err != nil {
		return err.Error()
	}
	if found.JSON == want.JSON {
		return "its version, or its entries in the indexes"
	}
	var is, should map[string]json.RawMessage
	if json.Unmarshal([]byte(found.JSON), &is) != nil || json.Unmarshal([]byte(want.JSON), &should) != nil {
		return "it is not a session"
	}
	var fields []string
	for _, name := range domain.FieldNames() {
		if string(is[name]) != string(should[name]) {
			fields = append(fields, fmt.Sprintf("%s is %s, and in the log %s", name, orNothing(is[name]), orNothing(should[name])))
		}
	}
	if len(fields) == 0 {
		return "it has a member that sessions do not have"
	}
	return strings.Join(fields, "; ")
}

func orNothing(value json.RawMessage) string {
	if value == nil {
		return "nothing"
	}
	return string(value)
}
