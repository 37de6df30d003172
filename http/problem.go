package http

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"github.com/gofiber/fiber/v2"

	"chatsessions/domain"
)

// A problem is an error as a client sees it: RFC 9457, with the members of a
// Feathers error as extensions, so that a Feathers client throws its own class.
type problem struct {
	Type     string       `json:"type"`
	Title    string       `json:"title"`
	Status   int          `json:"status"`
	Detail   string       `json:"detail"`
	Instance string       `json:"instance"`
	Errors   []fieldError `json:"errors,omitempty"`

	Name      string `json:"name"`
	Message   string `json:"message"`
	Code      int    `json:"code"`
	ClassName string `json:"className"`

	State    domain.State `json:"state,omitempty"`
	Allowed  *[]string    `json:"allowed,omitempty"`
	Conflict *conflict    `json:"conflict,omitempty"`
	// MayHaveBeenWritten is said of every write that was answered with a 503.
	MayHaveBeenWritten *bool `json:"mayHaveBeenWritten,omitempty"`
	// LogEnd is where the log ends, said of a position beyond that. LastEventID is where
	// to resume, said in the last event of a stream.
	LogEnd      *uint64 `json:"logEnd,omitempty"`
	LastEventID string  `json:"lastEventId,omitempty"`

	headers map[string]string
	cause   error // what is logged, and not shown
	quiet   bool  // it is told in sum elsewhere, not one by one
}

type fieldError struct {
	Pointer string `json:"pointer"`
	Detail  string `json:"detail"`
}

// A conflict is the transition that a refused directive came too late for.
type conflict struct {
	Type domain.EventType `json:"type"`
	By   string           `json:"by"`
	At   int64            `json:"at"`
}

func (p *problem) Error() string { return p.Detail }
func (p *problem) Unwrap() error { return p.cause }

// with sets a header of the answer.
func (p *problem) with(header, value string) *problem {
	if p.headers == nil {
		p.headers = map[string]string{}
	}
	p.headers[header] = value
	return p
}

// because keeps the cause for the log.
func (p *problem) because(err error) *problem {
	p.cause = err
	return p
}

// quietly keeps the problem out of the log.
func (p *problem) quietly() *problem {
	p.quiet = true
	return p
}

// feathersNames are the words of those classes of @feathersjs/errors that are
// not named after the status' reason.
var feathersNames = map[int]string{
	401: "Not Authenticated", 408: "Timeout", 422: "Unprocessable",
	500: "General Error", 503: "Unavailable",
}

// reason returns the reason phrase of a status. It differs from net/http where
// that keeps to older words than clients of this API were promised.
func reason(status int) string {
	switch status {
	case fiber.StatusRequestEntityTooLarge:
		return "Payload Too Large"
	case fiber.StatusRequestURITooLong:
		return "URI Too Long"
	}
	return http.StatusText(status)
}

// newProblem makes a problem of a status, with the name that Feathers has for it.
func newProblem(status int, format string, args ...any) *problem {
	title := reason(status)
	words := feathersNames[status]
	if words == "" {
		words = title
	}
	detail := fmt.Sprintf(format, args...)
	return &problem{
		Type: "about:blank", Title: title, Status: status, Detail: detail,
		Name: strings.ReplaceAll(words, " ", ""), Message: detail, Code: status,
		ClassName: strings.ToLower(strings.ReplaceAll(words, " ", "-")),
	}
}

func badRequest(format string, args ...any) *problem {
	return newProblem(fiber.StatusBadRequest, format, args...)
}

func notFound() *problem {
	return newProblem(fiber.StatusNotFound, "there is no such session, or it is not yours to see")
}

// unavailable is a 503: what is answered now would not be the truth.
func unavailable(err error, format string, args ...any) *problem {
	return newProblem(fiber.StatusServiceUnavailable, format, args...).with(fiber.HeaderRetryAfter, "1").because(err)
}

// withFields makes a problem that lists every field. Its detail tells the first.
func withFields(status int, fields []domain.FieldError) *problem {
	more := ""
	if n := len(fields) - 1; n > 0 {
		more = fmt.Sprintf("; and %d more, see errors", n)
	}
	p := newProblem(status, "%s%s", fields[0].Detail, more)
	for _, f := range fields {
		p.Errors = append(p.Errors, fieldError(f))
	}
	return p
}

// problemOf is the one table from errors to answers.
func problemOf(err error) *problem {
	var (
		p         *problem
		invalid   *domain.InvalidError
		forbidden *domain.ForbiddenError
		illegal   *domain.IllegalTransitionError
		stale     *domain.PreconditionError
		byFiber   *fiber.Error
	)
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, domain.ErrNotFound):
		return notFound()
	case errors.As(err, &invalid):
		return withFields(fiber.StatusUnprocessableEntity, invalid.Fields)
	case errors.As(err, &forbidden):
		return withFields(fiber.StatusForbidden, forbidden.Fields)
	case errors.As(err, &stale):
		return preconditionFailed(stale.Version, etag(stale.Version))
	case errors.As(err, &illegal):
		return illegalTransition(illegal)
	case errors.Is(err, domain.ErrKeyReused):
		return newProblem(fiber.StatusUnprocessableEntity,
			"this Idempotency-Key was used before with another body; a new request needs a new key")
	case errors.Is(err, domain.ErrUnreadable):
		return unreadable(err)
	case errors.Is(err, domain.ErrUnavailable):
		return unavailable(err, "the service cannot answer truthfully now; try again")
	case errors.As(err, &byFiber):
		return fromFiber(byFiber)
	}
	return newProblem(fiber.StatusInternalServerError, "something went wrong on our side").because(err)
}

// unreadable says that one session cannot be told, for as long as nobody mends it.
func unreadable(err error) *problem {
	return unavailable(err, "the log holds something of this session that cannot be read, so its state cannot be told; whoever runs the service finds it with `chatsessions parked`").
		with(fiber.HeaderRetryAfter, "3600")
}

func illegalTransition(e *domain.IllegalTransitionError) *problem {
	s := &e.Session
	allowed := []string{}
	for _, t := range s.State.Allowed() {
		allowed = append(allowed, t.String())
	}
	possible := "nothing is possible any more"
	if len(allowed) > 0 {
		possible = "possible now: " + strings.Join(allowed, ", ")
	}
	p := newProblem(fiber.StatusConflict, "%v; %s", e, possible)
	p.State, p.Allowed = s.State, &allowed
	if t, ok := s.Entered(); ok {
		p.Conflict = &conflict{t.EventType(), s.Stamps[t].By, s.Stamps[t].At}
	}
	return p
}

// fromFiber words what the web framework found wrong before a handler ran.
func fromFiber(e *fiber.Error) *problem {
	switch e.Code {
	case fiber.StatusNotFound:
		return newProblem(e.Code, "there is nothing here; the resources are /chat-sessions, /chat-sessions/<id>, /chat-sessions/<id>/events and /chat-sessions/events")
	case fiber.StatusMethodNotAllowed:
		return newProblem(e.Code, "this resource does not have that method; Allow names those that it has")
	case fiber.StatusRequestHeaderFieldsTooLarge:
		return headTooLarge()
	case fiber.StatusBadRequest, fiber.StatusBadGateway: // the framework's word for a connection that broke
		return badRequest("the request cannot be read as HTTP/1.1: %s", withoutEcho(e.Message))
	}
	return newProblem(e.Code, "%s", e.Message)
}

// withoutEcho cuts the request out of the framework's message: the token is in it.
func withoutEcho(message string) string {
	message, _, _ = strings.Cut(message, `"`)
	message, _, _ = strings.Cut(message, ": buffer size=")
	message = strings.TrimPrefix(message, "error when reading request headers: ")
	return strings.TrimRight(message, " :")
}

func headTooLarge() *problem {
	return newProblem(fiber.StatusRequestHeaderFieldsTooLarge,
		"a header may have %d bytes, all of them together with the request line %d", maxHeader, maxHead)
}

// fail answers with the error, and logs what is our defect or an outage.
func (s *Server) fail(c *fiber.Ctx, err error) error {
	p := *problemOf(err)
	gone := p.Status >= fiber.StatusServiceUnavailable && clientGone(c.Context())
	if gone {
		p = *abandoned(p.cause, p.MayHaveBeenWritten)
	}
	p.Instance = string(c.Request().URI().PathOriginal())
	if p.Instance == "" { // the target could not be read
		p.Instance = "/"
	}
	if p.Status >= 500 && !p.quiet {
		level, cause := slog.LevelError, error(&p)
		if p.cause != nil {
			cause = p.cause
		}
		switch {
		case p.Status == fiber.StatusGatewayTimeout:
			level = slog.LevelInfo // the client asked for a position that is not there
		case gone:
			level = slog.LevelDebug // nobody is left who could have been served
		}
		s.Logger.Log(context.Background(), level, "request failed", "status", p.Status, "method", c.Method(),
			"path", p.Instance, "request", correlationID(c), "error", cause)
	}
	for name, value := range p.headers {
		c.Set(name, value)
	}
	c.Status(p.Status).Set(fiber.HeaderContentType, "application/problem+json")
	c.Set(fiber.HeaderCacheControl, "no-store")
	encoder := json.NewEncoder(c.Response().BodyWriter())
	encoder.SetEscapeHTML(false) // it is JSON, and read by people
	return encoder.Encode(p)
}

// etag is the entity tag of a session's version.
func etag(version uint64) string { return `"` + strconv.FormatUint(version, 10) + `"` }
