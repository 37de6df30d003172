package auth

import (
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"chatsessions/domain"
	"chatsessions/http/problem"
)

// A Verifier knows which caller a bearer token stands for.
type Verifier interface {
	// Verify returns false for a token that stands for no caller.
	Verify(token string) (domain.Caller, bool)
}

// A Gate admits callers: those with a valid token that have not reached their limit.
type Gate struct {
	tokens Verifier
	limits *rateLimiter
}

// NewGate returns a gate that allows each account perSecond requests; 0 is no limit.
func NewGate(tokens Verifier, perSecond float64, now func() time.Time) *Gate {
	return &Gate{tokens: tokens, limits: newRateLimiter(perSecond, now)}
}

const localCaller = "caller"

// Authenticate is the middleware that finds the caller of a request, or refuses it (RFC 6750).
func (g *Gate) Authenticate(c *fiber.Ctx) error {
	var authorization string
	headers := c.Request().Header.PeekAll(fiber.HeaderAuthorization)
	if len(headers) > 0 {
		authorization = string(headers[0])
	}
	token, given := bearer(authorization)
	if !given {
		return problem.New(fiber.StatusUnauthorized, "a token is needed: Authorization: Bearer <your-api-token>").
			With(fiber.HeaderWWWAuthenticate, "Bearer")
	}
	caller, ok := g.tokens.Verify(token)
	if !ok || len(headers) > 1 { // which of several tokens is meant, is unknown
		return problem.New(fiber.StatusUnauthorized, "the token is not valid").
			With(fiber.HeaderWWWAuthenticate, `Bearer error="invalid_token"`)
	}
	if wait := g.limits.wait(caller.Account); wait > 0 {
		return tooManyRequests(wait)
	}
	c.Locals(localCaller, caller)
	return c.Next()
}

// Caller returns the caller that Authenticate found.
func Caller(c *fiber.Ctx) domain.Caller { return c.Locals(localCaller).(domain.Caller) }

// Token returns the token of an authenticated request, as a copy that outlives it.
func Token(c *fiber.Ctx) string {
	token, _ := bearer(c.Get(fiber.HeaderAuthorization))
	return strings.Clone(token)
}

// CheckWriter refuses a caller whose role writes nothing.
func CheckWriter(c *fiber.Ctx) error {
	if caller := Caller(c); !caller.MayWrite() {
		return problem.New(fiber.StatusForbidden, "the role %q reads and changes nothing", caller.Role).
			With(fiber.HeaderWWWAuthenticate, `Bearer error="insufficient_scope"`)
	}
	return nil
}

// bearer takes the token out of an Authorization header.
func bearer(header string) (token string, given bool) {
	scheme, token, _ := strings.Cut(header, " ")
	token = strings.Trim(token, " ")
	return token, strings.EqualFold(scheme, "Bearer") && token != ""
}
