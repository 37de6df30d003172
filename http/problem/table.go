package problem

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/gofiber/fiber/v2"

	"chatsessions/domain"
)

// Of is the one table from errors to responses, except the framework's: the server words them.
func Of(err error) *Problem {
	var (
		p         *Problem
		invalid   *domain.InvalidError
		forbidden *domain.ForbiddenError
		illegal   *domain.IllegalTransitionError
		stale     *domain.PreconditionError
	)
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, domain.ErrNotFound):
		return NotFound()
	case errors.As(err, &invalid):
		return withFields(http.StatusUnprocessableEntity, invalid.Fields)
	case errors.As(err, &forbidden):
		return withFields(http.StatusForbidden, forbidden.Fields)
	case errors.As(err, &stale):
		return PreconditionFailed(stale.Version, ETag(stale.Version))
	case errors.As(err, &illegal):
		return illegalTransition(illegal)
	case errors.Is(err, domain.ErrKeyReused):
		return New(http.StatusUnprocessableEntity,
			"this Idempotency-Key was used before with another body; a new request needs a new key")
	case errors.Is(err, domain.ErrUnreadable):
		return Unreadable(err)
	case errors.Is(err, domain.ErrUnavailable):
		return Unavailable(err, "the service cannot give a correct answer now; try again")
	}
	return New(http.StatusInternalServerError, "something went wrong on our side").Because(err)
}

// BadRequest is a 400: the request cannot be understood.
func BadRequest(format string, args ...any) *Problem {
	return New(http.StatusBadRequest, format, args...)
}

// NotFound is the 404 of a session. It does not reveal whether the session exists.
func NotFound() *Problem {
	return New(http.StatusNotFound, "there is no such session, or it is not yours to see")
}

// Unavailable is a 503: an answer now might not be the truth.
func Unavailable(err error, format string, args ...any) *Problem {
	return New(http.StatusServiceUnavailable, format, args...).With(fiber.HeaderRetryAfter, "1").Because(err)
}

// Unreadable is the 503 of an unreadable session, until an operator repairs the log.
func Unreadable(err error) *Problem {
	return Unavailable(err, "the log holds something of this session that cannot be read, so its state is unknown; the operator finds it with `chatsessions parked`").
		With(fiber.HeaderRetryAfter, "3600")
}

// Abandoned is the 503 for a client that closed its connection; written is nil for a
// read. A client that half-closed its connection can still read it, so it must be true.
func Abandoned(err error, written *bool) *Problem {
	p := Unavailable(err, "the client closed the connection, or its own direction of it, before there was an answer")
	p.MayHaveBeenWritten = written
	return p
}

// PreconditionFailed is a 412, with the entity tag that would have matched.
func PreconditionFailed(version uint64, etag string) *Problem {
	return New(http.StatusPreconditionFailed, "the condition does not hold: %v", &domain.PreconditionError{Version: version}).
		With(fiber.HeaderETag, etag)
}

// ETag returns the entity tag of a session's version.
func ETag(version uint64) string { return `"` + strconv.FormatUint(version, 10) + `"` }

// withFields lists every field. The detail is that of the first.
func withFields(status int, fields []domain.FieldError) *Problem {
	more := ""
	if n := len(fields) - 1; n > 0 {
		more = fmt.Sprintf("; and %d more, see errors", n)
	}
	p := New(status, "%s%s", fields[0].Detail, more)
	for _, f := range fields {
		p.Errors = append(p.Errors, field(f))
	}
	return p
}

func illegalTransition(e *domain.IllegalTransitionError) *Problem {
	s := &e.Session
	allowed := []string{}
	for _, t := range s.State.Allowed() {
		allowed = append(allowed, t.String())
	}
	possible := "nothing is possible any more"
	if len(allowed) > 0 {
		possible = "possible now: " + strings.Join(allowed, ", ")
	}
	p := New(http.StatusConflict, "%v; %s", e, possible)
	p.State, p.Allowed = s.State, &allowed
	if t, ok := s.Entered(); ok {
		p.Conflict = &conflict{t.EventType(), s.Stamps[t].By, s.Stamps[t].At}
	}
	return p
}
