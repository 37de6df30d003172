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

// shared lists are read once for all who ask the same at the same time, as many do
// for the newest sessions. Who asks while an answer is being read does not get that
// one, which may lack a write that he was told of; he waits for the next, together
// with all others who do.
type sharedLists struct {
	mu    sync.Mutex
	asked map[string]*question // those that are being answered
}

// A question is one that somebody reads the answer to.
type question struct {
	next *sharedPage // of those who have asked since; nil for nobody
}

// A sharedPage is the answer for all who asked before it began to be read.
type sharedPage struct {
	waiting int           // how many want it
	latest  time.Time     // when the last of them gives up
	endless bool          // somebody does not
	lead    chan struct{} // of one element: who takes it has to read the answer
	read    chan struct{} // closed when page and err are there
	page    query.Page
	err     error
}

func newSharedLists() *sharedLists { return &sharedLists{asked: map[string]*question{}} }

// list returns what read returns, which was begun after the call. It returns ctx's
// error when that ends while somebody else reads. The page must not be changed.
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

// lead reads the answer for all, until the last of them gives up.
func (s *sharedLists) lead(ctx context.Context, key string, asked *question, mine *sharedPage, read func(context.Context) (query.Page, error)) {
	mine.err = fmt.Errorf("%w: whoever read the list has failed", domain.ErrUnavailable) // unless read returns
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.advance(key, asked)
		close(mine.read)
	}()
	ctx = context.WithoutCancel(ctx)
	if !mine.endless {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, mine.latest)
		defer cancel()
	}
	mine.page, mine.err = read(ctx)
}

func (p *sharedPage) join(ctx context.Context) {
	p.waiting++
	deadline, ok := ctx.Deadline()
	p.endless = p.endless || !ok
	if deadline.After(p.latest) {
		p.latest = deadline
	}
}

// advance has the next answer read by one of those who wait for it.
func (s *sharedLists) advance(key string, asked *question) {
	if asked.next == nil {
		delete(s.asked, key)
		return
	}
	asked.next.lead <- struct{}{}
	asked.next = nil
}

// leave is for who waits no longer.
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
	case <-mine.lead: // nobody is left who could
		s.advance(key, asked)
	default:
	}
}

// textOf writes a query; different ones differ.
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
