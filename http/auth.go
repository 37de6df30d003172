package http

import (
	"strings"

	"github.com/gofiber/fiber/v2"

	"chatsessions/domain"
	"chatsessions/http/problem"
)

// A TokenVerifier knows for whom a bearer token stands.
type TokenVerifier interface {
	// Verify returns false for a token that stands for nobody.
	Verify(token string) (domain.Caller, bool)
}

// authenticate finds out who calls, and whether he may call now (RFC 6750).
func (s *Server) authenticate(c *fiber.Ctx) error {
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
	caller, ok := s.Tokens.Verify(token)
	if !ok || len(headers) > 1 { // of several tokens, none can be told to be meant
		return problem.New(fiber.StatusUnauthorized, "the token is not valid").
			With(fiber.HeaderWWWAuthenticate, `Bearer error="invalid_token"`)
	}
	if wait := s.limits.wait(caller.Account); wait > 0 {
		return tooManyRequests(wait)
	}
	c.Locals(localCaller, caller)
	return c.Next()
}

func callerOf(c *fiber.Ctx) domain.Caller { return c.Locals(localCaller).(domain.Caller) }

// bearer takes the token out of an Authorization header. The result is a copy
// that outlives the request.
func bearer(header string) (token string, given bool) {
	scheme, token, _ := strings.Cut(header, " ")
	token = strings.Trim(token, " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", false
	}
	return strings.Clone(token), true
}

// writer returns the caller, or what keeps him from writing at all.
func writer(c *fiber.Ctx) (domain.Caller, error) {
	caller := callerOf(c)
	if !caller.MayWrite() {
		return caller, problem.New(fiber.StatusForbidden, "the role %q reads and changes nothing", caller.Role).
			With(fiber.HeaderWWWAuthenticate, `Bearer error="insufficient_scope"`)
	}
	return caller, nil
}
