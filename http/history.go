package http

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/gofiber/fiber/v2"

	"chatsessions/domain"
	"chatsessions/domain/cloudevent"
	"chatsessions/http/auth"
	"chatsessions/http/conn"
	"chatsessions/http/feathers"
	"chatsessions/http/problem"
)

// Bounds of one response with a history.
const (
	maxHistory      = 10_000  // events
	maxHistoryBytes = 4 << 20 // a single event may have more
)

// usualEnvelope is how many bytes the attributes of an event usually take.
const usualEnvelope = 768

// A historyForm is a representation of a history.
type historyForm struct {
	mediaType string
	variant   string // distinguishes its entity tags from those of the others
	append    func(b []byte, r *domain.Record) []byte
}

// historyForms returns the forms that a client can ask for; the first is the default.
func historyForms() []historyForm {
	return []historyForm{
		{fiber.MIMEApplicationJSON, "", cloudevent.AppendHistory},
		// The JSON Batch Format of CloudEvents 1.0 (section 4 of the JSON event format).
		{"application/cloudevents-batch+json", "-cloudevents", cloudevent.Append},
	}
}

// history is GET /chat-sessions/:id/events.
func (s *Server) history(c *fiber.Ctx) error {
	c.Vary(fiber.HeaderAccept)
	form, err := acceptedForm(c)
	if err != nil {
		return err
	}
	condition, err := parseConditions(c)
	if err != nil {
		return err
	}
	query, err := parseHistoryQuery(conn.Query(c))
	if err != nil {
		return err
	}
	if err := s.awaitInLog(c); err != nil {
		return err
	}
	id, known := sessionID(c)
	if !known {
		return problem.NotFound()
	}
	ctx, cancel := context.WithTimeout(conn.Context(c), readDeadline)
	defer cancel()
	page, tag := historyPage{limit: query.limit, maxBytes: maxHistoryBytes}, ""
	for r, err := range s.past(ctx, auth.Caller(c), id) {
		if err != nil {
			return err
		}
		if tag == "" { // this is the newest event
			version := r.Event.Session.Version
			tag = `"` + strconv.FormatUint(version, 10) + form.variant + `"`
			if answered, err := condition.answer(c, version, tag); answered || err != nil {
				return err
			}
		}
		if r.Position <= query.after || query.limit == 0 {
			break
		}
		page.add(r.Position, form.append(make([]byte, 0, len(r.Event.Changes)+len(r.Encoded)+usualEnvelope), &r))
		if r.Previous <= query.after {
			break
		}
	}
	if page.more {
		c.Set(fiber.HeaderLink, query.next(id, page.events[0].position))
	}
	c.Set(fiber.HeaderETag, tag)
	c.Set(fiber.HeaderContentType, form.mediaType)
	c.Set(fiber.HeaderCacheControl, cachePrivately)
	c.Response().SetBodyRaw(page.array())
	return nil
}

// acceptedForm returns the representation that the client asks for.
func acceptedForm(c *fiber.Ctx) (historyForm, error) {
	forms := historyForms()
	var offers []string
	for _, f := range forms {
		offers = append(offers, f.mediaType)
	}
	accept := wholeList(c, fiber.HeaderAccept)
	i := negotiate(accept, offers)
	if i < 0 {
		return historyForm{}, problem.New(fiber.StatusNotAcceptable,
			"Accept %q matches no form of a history; there are %s", accept, strings.Join(offers, " and "))
	}
	return forms[i], nil
}

// A historyQuery selects a part of a history.
type historyQuery struct {
	after uint64 // only events after this position
	limit int    // events in one response
}

func parseHistoryQuery(text string) (historyQuery, error) {
	q := historyQuery{limit: maxHistory}
	params, err := feathers.Parse(text)
	if err != nil {
		return q, err
	}
	once := map[string]bool{}
	for i := range params {
		p := &params[i]
		name := p.Path[0]
		if len(p.Path) != 1 || name != "after" && name != "$limit" {
			return q, problem.BadRequest("%s means nothing for a history; there are after, a position, and $limit", p.Key)
		}
		if once[name] {
			return q, problem.BadRequest("%s is given twice", p.Key)
		}
		once[name] = true
		n, err := p.Number()
		if err != nil {
			return q, err
		}
		if name == "after" {
			q.after = uint64(n)
		} else {
			q.limit = int(min(n, maxHistory))
		}
	}
	return q, nil
}

// next returns the link to the page after a position.
func (q *historyQuery) next(id string, position uint64) string {
	limit := ""
	if q.limit < maxHistory {
		limit = fmt.Sprintf("&$limit=%d", q.limit)
	}
	return fmt.Sprintf(`<%s/%s/events?after=%d%s>; rel="next"`, pathSessions, id, position, limit)
}

// A historyPage keeps the oldest of the events that are added to it, as many as fit into a
// response. They are added newest first.
type historyPage struct {
	limit    int // events
	maxBytes int
	events   []placedEvent
	bytes    int
	more     bool // newer events were dropped
}

// A placedEvent is an event as the client gets it, and its position.
type placedEvent struct {
	position uint64
	text     []byte
}

func (p *historyPage) add(position uint64, text []byte) {
	p.events = append(p.events, placedEvent{position, text})
	p.bytes += len(text)
	for len(p.events) > 1 && (len(p.events) > p.limit || p.bytes > p.maxBytes) {
		p.bytes -= len(p.events[0].text)
		p.events[0].text = nil
		p.events, p.more = p.events[1:], true
	}
}

// array writes the events as a JSON array, oldest first.
func (p *historyPage) array() []byte {
	b := append(make([]byte, 0, p.bytes+len(p.events)+len("[]")), '[')
	for i := len(p.events) - 1; i >= 0; i-- {
		b = append(b, p.events[i].text...)
		if i > 0 {
			b = append(b, ',')
		}
	}
	return append(b, ']')
}
