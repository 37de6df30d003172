package http

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"chatsessions/domain"
	"chatsessions/domain/query"
)

// A memory is a log and a read model in memory. It decides with domain.Decide, recognizes
// repeated requests, and filters and orders lists itself, so that a test of the interface
// sees what a client would see. The hooks simulate what goes wrong below the interface.
type memory struct {
	mu       sync.Mutex
	records  []domain.Record // the position of each is its index, plus one
	requests []domain.Request
	observed []uint64
	waited   []uint64
	lists    []query.Query
	queries  map[string]string
	fail     map[string]error       // by the name of the method that returns it
	block    map[string]chan string // by the name of the method, which waits until it can send its name
}

func newMemory() *memory {
	return &memory{queries: map[string]string{}, fail: map[string]error{}, block: map[string]chan string{}}
}

// enter returns the error that a method is to return. It waits where the test says so.
func (m *memory) enter(ctx context.Context, method string) error {
	m.mu.Lock()
	err, gate := m.fail[method], m.block[method]
	m.mu.Unlock()
	if gate == nil {
		return err
	}
	select {
	case gate <- method:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%s: %w (%w)", method, domain.ErrUnavailable, ctx.Err())
	}
}

// failing makes a method return an error, nil for none.
func (m *memory) failing(method string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail[method] = err
}

// of returns the records of a session, oldest first. The caller holds m.mu.
func (m *memory) of(id string) (all []*domain.Record) {
	for i := range m.records {
		if r := &m.records[i]; r.Event.Session.ID == id {
			all = append(all, r)
		}
	}
	return all
}

func (m *memory) Transact(ctx context.Context, r domain.Request, decide func(domain.Session) ([]domain.Event, error)) (domain.Result, error) {
	if err := m.enter(ctx, "Transact"); err != nil {
		return domain.Result{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests = append(m.requests, r)
	all := m.of(r.SessionID)
	for i := len(all) - 1; i >= 0 && r.Key != ""; i-- {
		if all[i].Request.Key != r.Key {
			continue
		}
		if all[i].Request.Digest != r.Digest {
			return domain.Result{}, domain.ErrKeyReused
		}
		first := slices.IndexFunc(all, func(e *domain.Record) bool { return e.Request.Key == r.Key })
		before := domain.Session{}
		if first > 0 {
			before = all[first-1].Event.Session
		}
		return domain.Result{Record: all[i], Before: &before}, nil
	}
	var newest *domain.Record
	var before domain.Session
	if len(all) > 0 {
		newest = all[len(all)-1]
		before = newest.Event.Session
	}
	events, err := decide(before)
	if err != nil || len(events) == 0 {
		return domain.Result{Record: newest}, err
	}
	for _, e := range events {
		next := domain.Record{
			Position: uint64(len(m.records)) + 1, ID: newID(), Time: time.UnixMilli(e.Session.UpdatedAt).UTC(), Event: e, Request: r,
		}
		if newest != nil {
			next.Previous = newest.Position
		}
		m.records = append(m.records, next)
		newest = &next
	}
	return domain.Result{Record: newest, Before: &before}, nil
}

func (m *memory) Load(ctx context.Context, id string) (*domain.Record, error) {
	if err := m.enter(ctx, "Load"); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.of(id)
	if len(all) == 0 {
		return nil, domain.ErrNotFound
	}
	return all[len(all)-1], nil
}

func (m *memory) History(ctx context.Context, id string) iter.Seq2[domain.Record, error] {
	return func(yield func(domain.Record, error) bool) {
		if err := m.enter(ctx, "History"); err != nil {
			yield(domain.Record{}, err)
			return
		}
		m.mu.Lock()
		var all []domain.Record
		for _, r := range m.of(id) {
			all = append(all, *r)
		}
		m.mu.Unlock()
		if len(all) == 0 {
			yield(domain.Record{}, domain.ErrNotFound)
			return
		}
		for _, r := range slices.Backward(all) {
			m.mu.Lock()
			err := m.fail[fmt.Sprint("event ", r.Position)]
			m.mu.Unlock()
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

func (m *memory) End(ctx context.Context) (uint64, error) {
	if err := m.enter(ctx, "End"); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return uint64(len(m.records)), nil
}

func (m *memory) Get(ctx context.Context, id, account string) (query.Document, error) {
	if err := m.enter(ctx, "Get"); err != nil {
		return query.Document{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.of(id)
	if len(all) == 0 {
		return query.Document{}, domain.ErrNotFound
	}
	return document(all[len(all)-1], account), nil
}

func document(r *domain.Record, account string) query.Document {
	s := &r.Event.Session
	visible := account == "" || (domain.Caller{Account: account, Role: domain.RoleAccount}).MaySee(s)
	return query.Document{JSON: string(r.JSON()), Version: s.Version, Visible: visible}
}

func (m *memory) List(ctx context.Context, q query.Query) (query.Page, error) {
	if err := m.enter(ctx, "List"); err != nil {
		return query.Page{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lists = append(m.lists, q)
	newest := map[string]*domain.Record{}
	for i := range m.records {
		newest[m.records[i].Event.Session.ID] = &m.records[i]
	}
	order := func(a, b query.Place) int {
		c := cmp.Or(cmp.Compare(a.CreatedAt, b.CreatedAt), cmp.Compare(a.ID, b.ID))
		if !q.Ascending {
			c = -c
		}
		return c
	}
	place := func(r *domain.Record) query.Place {
		return query.Place{CreatedAt: r.Event.Session.CreatedAt, ID: r.Event.Session.ID}
	}
	var found []*domain.Record
	for _, r := range newest {
		s := &r.Event.Session
		matches := s.CreatedAt >= q.MinCreatedAt && s.CreatedAt <= q.MaxCreatedAt && document(r, q.VisibleTo).Visible
		for _, f := range q.Filters {
			matches = matches && slices.ContainsFunc(s.FilterValues(f.Field), func(v string) bool { return slices.Contains(f.Values, v) })
		}
		if matches {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b *domain.Record) int { return order(place(a), place(b)) })
	page := query.Page{}
	if q.Count {
		total := int64(len(found))
		page.Total = &total
	}
	if q.After != nil {
		found = slices.DeleteFunc(found, func(r *domain.Record) bool { return order(place(r), *q.After) <= 0 })
	}
	found = found[min(q.Skip, len(found)):]
	if len(found) > q.Limit {
		found = found[:q.Limit]
		if q.Limit > 0 {
			next := place(found[q.Limit-1])
			page.Next = &next
		}
	}
	for _, r := range found {
		page.Documents = append(page.Documents, string(r.JSON()))
	}
	return page, nil
}

func (m *memory) WaitFor(ctx context.Context, position uint64, atMost time.Duration) error {
	if err := m.enter(ctx, "WaitFor"); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waited = append(m.waited, position)
	if position > uint64(len(m.records)) {
		return fmt.Errorf("the read model is at %d: %w", len(m.records), domain.ErrUnavailable)
	}
	return nil
}

func (m *memory) AwaitEverywhere(ctx context.Context, _ uint64) error {
	return m.enter(ctx, "AwaitEverywhere")
}

func (m *memory) Observe(position uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.observed = append(m.observed, position)
}

func (m *memory) SaveQuery(ctx context.Context, account, text string) (string, error) {
	if err := m.enter(ctx, "SaveQuery"); err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(text))
	m.mu.Lock()
	defer m.mu.Unlock()
	digest := hex.EncodeToString(sum[:16])
	m.queries[account+" "+digest] = text
	return digest, nil
}

func (m *memory) LoadQuery(ctx context.Context, account, digest string) (string, error) {
	if err := m.enter(ctx, "LoadQuery"); err != nil {
		return "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	text, ok := m.queries[account+" "+digest]
	if !ok {
		return "", domain.ErrNotFound
	}
	return text, nil
}

// Follow, Read, and Durable make it a log of the feed, as far as a handler needs it.
func (m *memory) Follow(ctx context.Context, after uint64, _ int, handle func([]domain.Entry) error) error {
	for {
		m.mu.Lock()
		var entries []domain.Entry
		for i := range m.records[after:] {
			entries = append(entries, domain.Entry{Record: &m.records[int(after)+i]})
		}
		m.mu.Unlock()
		if len(entries) > 0 {
			if err := handle(entries); err != nil {
				return err
			}
			after += uint64(len(entries))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

func (m *memory) Read(_ context.Context, after, upTo uint64, _ int, handle func([]domain.Entry) error) error {
	m.mu.Lock()
	var entries []domain.Entry
	for i := after; i < upTo; i++ {
		entries = append(entries, domain.Entry{Record: &m.records[i]})
	}
	m.mu.Unlock()
	return handle(entries)
}

func (m *memory) Durable(context.Context, uint64) error { return nil }

// position is that of the newest event.
func (m *memory) position() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return uint64(len(m.records))
}
