package http

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/gofiber/fiber/v2"

	"chatsessions/domain"
	"chatsessions/domain/cloudevent"
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
	page, tag := historyPage{limit: query.limit, maxBytes: maxHistoryBytes}, ""
	for r, err := range s.requestedPast(c) {
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
		id, _ := sessionID(c)
		c.Set(fiber.HeaderLink, query.next(id, page.positions[0]))
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
			"Accept %q matches no form of a history; use %s", accept, strings.Join(offers, " or "))
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
	for p, err := range feathers.Params(text) {
		if err != nil {
			return q, err
		}
		if !p.Is("after") && !p.Is("$limit") {
			return q, problem.BadRequest("%s is not a parameter of a history; use after, which is a position, or $limit", p.Key)
		}
		if p.Again {
			return q, problem.BadRequest("%s is given twice", p.Key)
		}
		n, err := p.Number()
		if err != nil {
			return q, err
		}
		if p.Is("after") {
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

// A historyPage keeps the oldest events, added newest first, that fit into a response.
type historyPage struct {
	limit     int // events
	maxBytes  int
	texts     [][]byte // as the client gets them
	positions []uint64
	bytes     int
	more      bool // newer events were dropped
}

func (p *historyPage) add(position uint64, text []byte) {
	p.texts, p.positions = append(p.texts, text), append(p.positions, position)
	p.bytes += len(text)
	for len(p.texts) > 1 && (len(p.texts) > p.limit || p.bytes > p.maxBytes) {
		p.bytes -= len(p.texts[0])
		p.texts[0] = nil
		p.texts, p.positions, p.more = p.texts[1:], p.positions[1:], true
	}
}

// array writes the events as a JSON array, oldest first.
func (p *historyPage) array() []byte {
	slices.Reverse(p.texts)
	return array(p.texts)
}
