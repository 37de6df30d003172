package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/domain"
	"chatsessions/projections"
	"chatsessions/projections/layout"
)

// resolve looks once more at what differed, and tells what differs still.
func (p *verified) resolve(ctx context.Context) error {
	for d := range p.doubts {
		for since, need := time.Now(), uint64(0); ; {
			decided, err := p.judge(ctx, d, &need)
			if err != nil {
				return err
			}
			if decided {
				break
			}
			if time.Since(since) > p.patience {
				c, err := p.checkpoint(ctx)
				if err != nil {
					return err
				}
				end, err := p.log.End(ctx)
				if err != nil {
					return err
				}
				if err := p.lags(c.Position, end); err != nil {
					return err
				}
			}
			if !projections.Pause(ctx, 5*time.Millisecond) {
				return context.Cause(ctx)
			}
		}
	}
	clear(p.doubts)
	return nil
}

// A held is what the read model holds of a session, as of one moment.
type held struct {
	reached uint64 // position of the read model
	text    string // the document, "" for none
	stored  *layout.Stored
	damaged error
	parked  string             // what is noted of it, "" for nothing
	entries map[string]float64 // scores, by index; none where it lacks the session
}

// outOfOrder is said of an entry with another score than all the others.
const outOfOrder = "the index has the session with score %v, so it is out of order"

// judge decides whether there is a difference, and tells it; false where that cannot be
// decided before the read model has reached the position that is needed.
func (p *verified) judge(ctx context.Context, d doubt, need *uint64) (decided bool, err error) {
	entry, expected, err := p.expect(ctx, d.id)
	if err != nil {
		return false, err
	}
	if *need == 0 && entry.Err != nil { // nobody says at which position that is
		if *need, err = p.log.End(ctx); err != nil {
			return false, err
		}
	}
	h, err := p.look(ctx, d, expected)
	if err != nil {
		return false, err
	}
	position := entry.Record.Position
	if max(position, *need) > h.reached {
		return p.behind, nil // told already, or soon there
	}
	if h.stored != nil && h.stored.Position > position {
		// Perhaps the log was asked too early.
		again, _, err := p.expect(ctx, d.id)
		if err != nil || again.Record.Position > position {
			return false, err
		}
	}
	report := func(index, format string, args ...any) error {
		return p.report(Difference{SessionID: d.id, Index: index, Position: position, Detail: fmt.Sprintf(format, args...)})
	}
	if d.member != "" {
		belongs := expected != nil && expected.Member == d.member && expected.IsIn(d.index)
		score, there := h.entries[d.index]
		switch {
		case there && !belongs:
			err = report(d.index, "the index has the session, which does not belong there")
		case there && score != 0:
			err = report(d.index, outOfOrder, score)
		}
		return true, err
	}
	if expected == nil {
		return true, p.judgeHidden(ctx, d, h, entry, report)
	}
	switch {
	case h.damaged != nil:
		err = report("", "the document cannot be read: %v", h.damaged)
	case h.text == "" && h.parked != "":
		return true, report("", "the session is parked, and could be shown: %s", h.parked)
	case h.text == "":
		err = report("", "the session is missing")
	case h.stored.Position != position:
		err = report("", "the document is of position %d", h.stored.Position)
	case h.text != string(expected.Value):
		err = report("", "the document differs: %s", differing(h.stored, expected))
	case h.parked != "":
		err = report("", "the session is shown, and noted as parked: %s", h.parked)
	}
	for name := range expected.Indexes() {
		if err != nil {
			break
		}
		score, there := h.entries[name]
		switch {
		case !there:
			err = report(name, "the index lacks the session")
		case score != 0:
			err = report(name, outOfOrder, score)
		}
	}
	return true, err
}

// judgeHidden judges a session that is not to be shown: the log does not have it, or
// something of it that cannot be projected.
func (p *verified) judgeHidden(ctx context.Context, d doubt, h *held, entry domain.Entry, report func(index, format string, args ...any) error) error {
	switch {
	case entry.Err == nil && h.text != "":
		if err := report("", "the session is not in the log"); err != nil || h.stored == nil || layout.MemberID(h.stored.Member) != d.id {
			return err // of another session's document, the entries are that one's
		}
		for name := range h.stored.Indexes() { // by the document, they are where they should be
			if _, err := p.judge(ctx, doubt{d.id, name, h.stored.Member}, new(uint64)); err != nil {
				return err
			}
		}
		return nil
	case entry.Err == nil && h.parked != "":
		return report("", "the session is noted as parked, and not in the log")
	case entry.Err == nil:
		return nil
	case h.text != "":
		return report("", "the session is shown, and its newest event cannot be projected: %v", entry.Err)
	case h.parked == "":
		return report("", "the session is not parked, and its newest event cannot be projected: %v", entry.Err)
	}
	var parked layout.Parked
	if err := json.Unmarshal([]byte(h.parked), &parked); err != nil {
		return report("", "what is noted of the parked session cannot be read: %v", err)
	}
	if parked.SessionID != d.id {
		return report("", "what is noted of the parked session is of another one, %q", parked.SessionID)
	}
	// As the log says; at which position a message is that is no event, it does not.
	told := layout.Parked{SessionID: d.id, Position: entry.Record.Position, Reason: entry.Err.Error()}
	if told.Position == 0 {
		told.Position = parked.Position
	}
	return p.park(told)
}

// expect asks the log for a session's newest event, and returns what the read model has
// to hold of it: nil for a session that is not in the log, or, with an Unreadable, has
// to be parked.
func (p *verified) expect(ctx context.Context, id string) (domain.Entry, *layout.Document, error) {
	newest, err := p.Load(ctx, id)
	switch {
	case errors.Is(err, domain.ErrNotFound):
		return domain.Entry{Record: &domain.Record{}}, nil, nil
	case errors.Is(err, domain.ErrUnreadable):
		return domain.Entry{Record: &domain.Record{}, Err: err}, nil, nil
	case err != nil:
		return domain.Entry{}, nil, err
	}
	entry := domain.Entry{Record: newest}
	d, err := p.documentOf(&entry)
	if err != nil {
		entry.Err = err
		return entry, nil, nil //nolint:nilerr // it is to be parked
	}
	return entry, d, nil
}

// look reads what the read model holds of a session, in one transaction.
func (p *verified) look(ctx context.Context, d doubt, expected *layout.Document) (*held, error) {
	trip := p.rdb.TxPipeline()
	at := trip.Get(ctx, p.keys.Checkpoint())
	text := trip.Get(ctx, p.keys.Document(d.id))
	parked := trip.HGet(ctx, p.keys.Parked(), d.id)
	entries := map[string]*redis.FloatCmd{}
	if d.member != "" {
		entries[d.index] = trip.ZScore(ctx, p.keys.Index(d.index), d.member)
	} else if expected != nil {
		for name := range expected.Indexes() {
			entries[name] = trip.ZScore(ctx, p.keys.Index(name), expected.Member)
		}
	}
	if _, err := trip.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) && !isWrongType(err) {
		return nil, fmt.Errorf("session %s: %w", d.id, err)
	}
	c, err := p.parse(at.Val())
	if err != nil {
		return nil, err
	}
	h := &held{reached: c.Position, text: text.Val(), parked: parked.Val(), entries: map[string]float64{}}
	if isWrongType(text.Err()) {
		h.damaged = errors.New("its key is not of its kind")
	} else if h.text != "" {
		h.stored, h.damaged = layout.DecodeDocument(h.text)
	}
	if h.damaged != nil {
		h.stored = nil
	}
	for name, cmd := range entries {
		if cmd.Err() == nil {
			h.entries[name] = cmd.Val()
		}
	}
	return h, nil
}

// differing says in what a document is not as it has to be.
func differing(found *layout.Stored, expected *layout.Document) string {
	want, err := layout.DecodeDocument(string(expected.Value))
	if err != nil {
		return err.Error()
	}
	if found.JSON == want.JSON {
		return "its version, or its entries in the indexes"
	}
	var is, was map[string]json.RawMessage
	if json.Unmarshal([]byte(found.JSON), &is) != nil || json.Unmarshal([]byte(want.JSON), &was) != nil {
		return "it is no session"
	}
	var names []string
	for _, name := range domain.FieldNames() {
		if string(is[name]) != string(was[name]) {
			names = append(names, fmt.Sprintf("%s is %s, and in the log %s", name, orNothing(is[name]), orNothing(was[name])))
		}
	}
	if len(names) == 0 {
		return "it has what a session does not have"
	}
	return strings.Join(names, "; ")
}

func orNothing(value json.RawMessage) string {
	if value == nil {
		return "nothing"
	}
	return string(value)
}
