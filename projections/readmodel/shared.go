package readmodel

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"chatsessions/domain"
	"chatsessions/domain/query"
)

// sharedLists reads a list once for all who request the same list concurrently. A request
// that arrives during a read does not get that page, which may lack a write that its
// client knows of. It waits for the next read, with all others that arrive until then.
type sharedLists struct {
	mu    sync.Mutex
	asked map[string]*question // lists being read
}

// A question is a list that is being read.
type question struct {
	next *sharedPage // for requests since; nil for none
}

// A sharedPage is the answer to all requests that came before its read began.
type sharedPage struct {
	waiting int           // requests
	latest  time.Time     // deadline of the last of them
	lead    chan struct{} // holds one token: the request that takes it does the read
	read    chan struct{} // closed when page and err are set
	page    query.Page
	err     error
}

func newSharedLists() *sharedLists { return &sharedLists{asked: map[string]*question{}} }

// list returns the result of a read that began after the call. It returns an error if ctx
// ends while another request reads. The page must not be changed.
func (s *sharedLists) list(ctx context.Context, q query.Query, read func(context.Context) (query.Page, error)) (query.Page, error) {
	key := textOf(q)
	s.mu.Lock()
	asked, busy := s.asked[key]
	if !busy {
		asked = &question{}
		s.asked[key] = asked
	}
	if asked.next == nil {
		asked.next = &sharedPage{lead: make(chan struct{}, 1), read: make(chan struct{})}
	}
	mine := asked.next
	mine.join(ctx)
	if !busy {
		s.advance(key, asked)
	}
	s.mu.Unlock()

	select {
	case <-mine.lead:
		s.lead(ctx, key, asked, mine, read)
	case <-mine.read:
	case <-ctx.Done():
		s.leave(key, asked, mine)
		return query.Page{}, fmt.Errorf("%w: wait for a list: %w", domain.ErrUnavailable, ctx.Err())
	}
	return mine.page, mine.err
}

// lead does the read for all, until the last of them gives up.
func (s *sharedLists) lead(ctx context.Context, key string, asked *question, mine *sharedPage, read func(context.Context) (query.Page, error)) {
	mine.err = fmt.Errorf("%w: the shared read of the list failed", domain.ErrUnavailable) // unless read returns
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.advance(key, asked)
		close(mine.read)
	}()
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), mine.latest)
	defer cancel()
	mine.page, mine.err = read(ctx)
}

func (p *sharedPage) join(ctx context.Context) {
	p.waiting++
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(time.Hour)
	}
	if deadline.After(p.latest) {
		p.latest = deadline
	}
}

// advance starts the next read by one of the requests that wait for it.
func (s *sharedLists) advance(key string, asked *question) {
	if asked.next == nil {
		delete(s.asked, key)
		return
	}
	asked.next.lead <- struct{}{}
	asked.next = nil
}

// leave removes a request that no longer waits.
func (s *sharedLists) leave(key string, asked *question, mine *sharedPage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if mine.waiting--; mine.waiting > 0 {
		return
	}
	if asked.next == mine {
		asked.next = nil
		return
	}
	select {
	case <-mine.lead: // no request is left to take it
		s.advance(key, asked)
	default:
	}
}

// textOf returns a key for a query; different queries have different keys.
func textOf(q query.Query) string {
	b := strconv.AppendQuote(make([]byte, 0, 256), q.VisibleTo)
	for _, f := range q.Filters {
		b = append(strconv.AppendQuote(b, f.Field), '=')
		for _, value := range f.Values {
			b = strconv.AppendQuote(b, value)
		}
	}
	for _, n := range []int64{q.MinCreatedAt, q.MaxCreatedAt, int64(q.Skip), int64(q.Limit)} {
		b = append(strconv.AppendInt(b, n, 10), ' ')
	}
	b = strconv.AppendBool(b, q.Ascending)
	b = strconv.AppendBool(b, q.Count)
	if q.After != nil {
		b = strconv.AppendQuote(strconv.AppendInt(b, q.After.CreatedAt, 10), q.After.ID)
	}
	return string(b)
}
