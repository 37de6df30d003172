package http

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/google/uuid"

	"chatsessions/domain"
	"chatsessions/domain/query"
	"chatsessions/http/auth"
	"chatsessions/http/conn"
	"chatsessions/http/feathers"
	"chatsessions/http/problem"
)

// create is POST /chat-sessions.
func (s *Server) create(c *fiber.Ctx) error {
	w, err := readWrite(c, "/chat-sessions")
	if err != nil {
		return err
	}
	values, reader := readCreate(w.members, w.caller)
	id := w.key.sessionID()
	w.creates = true
	result, err := s.transact(c, w, id, reader, func(now int64) domain.Command {
		return domain.Create{ID: id, By: w.caller, Now: now, Values: values}
	})
	if err != nil {
		return err
	}
	c.Location("/chat-sessions/" + id)
	return w.answer(c, result.Record, reader.unknown)
}

// change is PATCH /chat-sessions/:id.
func (s *Server) change(c *fiber.Ctx) error {
	id, known := sessionID(c)
	w, err := readWrite(c, "/chat-sessions/"+id)
	if err != nil {
		return err
	}
	condition, err := parseConditions(c)
	if err != nil {
		return err
	}
	if !known {
		return problem.NotFound()
	}
	command, reader := readChange(w.members)
	command.By, command.Condition = w.caller, condition.allow
	result, err := s.transact(c, w, id, reader, func(now int64) domain.Command {
		command.Now = now
		return command
	})
	if err != nil {
		return err
	}
	decidedOn := result.Before
	if decidedOn == nil { // nothing was written
		decidedOn = &result.Record.Event.Session
	}
	return w.answer(c, result.Record, reader.ignored(decidedOn))
}

// get is GET /chat-sessions/:id.
func (s *Server) get(c *fiber.Ctx) error {
	condition, err := parseConditions(c)
	if err != nil {
		return err
	}
	query, err := feathers.ParseSession(conn.Query(c))
	if err != nil {
		return err
	}
	if query.At != nil {
		return s.getAt(c, *query.At, condition, query.Select)
	}
	if err := s.awaitPosition(c); err != nil {
		return err
	}
	id, known := sessionID(c)
	if !known {
		return problem.NotFound()
	}
	document, err := s.load(c, id)
	if err != nil {
		return err
	}
	if !document.Visible {
		return problem.NotFound()
	}
	if answered, err := condition.answer(c, document.Version, problem.ETag(document.Version)); answered || err != nil {
		return err
	}
	describeSession(c, document.Version)
	return c.SendString(query.Select.Text(document.JSON))
}

// load gets a session from the read model, or from the log if the read model cannot be
// trusted now or does not have the session. Only the log can prove that there is none.
func (s *Server) load(c *fiber.Ctx, id string) (query.Document, error) {
	caller := auth.Caller(c)
	account := caller.Account
	if caller.SeesAll() {
		account = ""
	}
	reading, stop := context.WithTimeout(conn.Context(c), hangingReads)
	document, err := s.Reads.Get(reading, id, account)
	stop()
	if !errors.Is(err, domain.ErrUnavailable) && !errors.Is(err, domain.ErrNotFound) {
		return document, err
	}
	ctx, cancel := context.WithTimeout(conn.Context(c), readDeadline)
	defer cancel()
	newest, err := s.Log.Load(ctx, id)
	if err != nil {
		return query.Document{}, err
	}
	// A client that asks another node next must not see less.
	if err := s.Reads.AwaitEverywhere(ctx, newest.Position); err != nil {
		return query.Document{}, err
	}
	s.Reads.Observe(newest.Position)
	c.Set(headerSource, "log")
	return query.Document{
		JSON:    string(newest.JSON()),
		Version: newest.Event.Session.Version,
		Visible: caller.MaySee(&newest.Event.Session),
	}, nil
}

// A write is what a POST and a PATCH have in common.
type write struct {
	caller  domain.Caller
	body    []byte
	members []member
	key     requestKey
	prefer  preferences
	names   feathers.Selection
	creates bool // it is a POST
}

// readWrite reads the parts of a write that can be checked without the session. path is the
// canonical path of the resource, which the client may have spelled otherwise.
func readWrite(c *fiber.Ctx, path string) (w write, err error) {
	w.caller = auth.Caller(c) // admit has checked that they may write
	if w.body, err = jsonBody(c); err != nil {
		return w, err
	}
	if w.key, err = parseKey(c, w.caller.Account, path); err != nil {
		return w, err
	}
	if w.names, err = feathers.ParseSelect(conn.Query(c)); err != nil {
		return w, err
	}
	w.prefer = parsePrefer(c)
	w.members, err = parseObject(w.body)
	return w, err
}

// answer sends the session as it is now, and names the members that had no effect.
func (w *write) answer(c *fiber.Ctx, r *domain.Record, ignored []string) error {
	if len(ignored) > 0 {
		c.Set(headerIgnored, headerList(ignored))
	}
	if w.prefer.strict {
		c.Set(headerPrefApplied, "handling=strict")
	}
	return sendSession(c, w.names.Project(r.JSON()), r.Event.Session.Version)
}

// maxIgnored bounds the value of Ignored-Fields, in bytes.
const maxIgnored = 1 << 10

// headerList writes a header's names, percent-encoded as needed, "..." after too many.
func headerList(names []string) string {
	var list []string
	size := len("...")
	for _, name := range names {
		encoded := strings.ReplaceAll(url.PathEscape(name), ",", "%2C")
		if name == "" {
			encoded = `""`
		}
		if size += len(encoded) + len(", "); size > maxIgnored {
			list = append(list, "...")
			break
		}
		list = append(list, encoded)
	}
	return strings.Join(list, ", ")
}

// transact carries a command out and waits until the read model shows it.
func (s *Server) transact(c *fiber.Ctx, w write, id string, body *bodyReader, command func(now int64) domain.Command) (domain.Result, error) {
	ctx, cancel := context.WithTimeout(conn.Context(c), writeDeadline)
	defer cancel()
	request := domain.Request{
		SessionID:     id,
		Actor:         w.caller.Account,
		CorrelationID: correlationID(c),
		TraceParent:   traceParent(c.Get(headerTraceParent)),
		New:           w.creates,
		Key:           w.key.String(),
		Digest:        w.key.digest(w.body),
	}
	findings := func(current *domain.Session) []domain.FieldError { return body.findings(current, w.prefer.strict) }
	result, err := s.Log.Transact(ctx, request, func(current domain.Session) ([]domain.Event, error) {
		return domain.Decide(current, domain.Parsed{Command: command(s.Now().UnixMilli()), Findings: findings})
	})
	switch {
	case errors.Is(err, domain.ErrOutcomeUnknown):
		next := "read the session to see; a request with an Idempotency-Key could be sent again as it is"
		if w.key.given {
			next = "send the same request with the same Idempotency-Key again"
		}
		return result, problem.Unavailable(err, "the log did not say whether the change was written; %s", next).Written(true)
	case errors.Is(err, domain.ErrHistoryTooLong):
		return result, problem.Unavailable(err,
			"the session has too many events to tell whether this Idempotency-Key was used; without one, and with If-Match, the request will do").
			With(fiber.HeaderRetryAfter, "3600").Written(true)
	case errors.Is(err, domain.ErrUnreadable):
		// With a key, an earlier request may have written it.
		return result, problem.Unreadable(err).Written(w.key.given)
	case errors.Is(err, domain.ErrNotWritable):
		return result, problem.Unavailable(err, "the log refuses the change until the operator has repaired it or made room; the change was not written").
			With(fiber.HeaderRetryAfter, "60").Written(false)
	case errors.Is(err, domain.ErrUnavailable):
		return result, problem.Unavailable(err, "the log cannot be reached now; the change was not written, try again").Written(false)
	}
	if result.Record == nil { // the response shows nothing of the session
		return result, err
	}
	if gone := s.showPosition(c, result.Record.Position, err == nil); gone != nil {
		return result, gone
	}
	return result, err
}

// showPosition waits until the read model has reached what the response shows, even a
// refusal, so that no later GET shows less. If the client disconnects before, it gets a 503.
func (s *Server) showPosition(c *fiber.Ctx, position uint64, succeeded bool) error {
	if position == 0 {
		return nil
	}
	if err := s.Reads.WaitFor(conn.Context(c), position, s.WriteWait); err != nil && conn.Gone(c.Context()) {
		return problem.Abandoned(err, &succeeded)
	}
	// Not before the wait: no client has seen the position yet, and every read would have to
	// wait for the newest write of all.
	s.Reads.Observe(position)
	if succeeded {
		c.Set(headerPosition, strconv.FormatUint(position, 10))
	}
	return nil
}

// awaitPosition waits for the position that a GET asks for.
func (s *Server) awaitPosition(c *fiber.Ctx) error {
	position, err := parsePosition(c)
	if err != nil || position == 0 {
		return err
	}
	if err := s.Reads.WaitFor(conn.Context(c), position, positionDeadline); err != nil {
		return problem.New(fiber.StatusGatewayTimeout,
			"the read model has not reached position %d within %d s", position, positionDeadline/time.Second).Because(err)
	}
	return nil
}

func sendSession(c *fiber.Ctx, json []byte, version uint64) error {
	describeSession(c, version)
	return c.Send(json)
}

func describeSession(c *fiber.Ctx, version uint64) {
	c.Set(fiber.HeaderETag, problem.ETag(version))
	c.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
	c.Set(fiber.HeaderCacheControl, cachePrivately)
}

// sessionID returns the id in the path, and whether it can be the id of a session.
func sessionID(c *fiber.Ctx) (string, bool) {
	id, err := url.PathUnescape(c.Params("id"))
	if err != nil {
		return "", false
	}
	canonical := len(id) == 36 && strings.ToLower(id) == id && uuid.Validate(id) == nil
	return strings.Clone(id), canonical
}
