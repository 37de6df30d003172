package http

import (
	"errors"
	"strings"

	"github.com/gofiber/fiber/v2"

	"chatsessions/http/conn"
	"chatsessions/http/problem"
)

// fail is the error handler of the framework: it answers with the problem, and logs it.
func (s *Server) fail(c *fiber.Ctx, err error) error {
	var byFiber *fiber.Error
	if errors.As(err, &byFiber) {
		err = fromFiber(byFiber)
	}
	p := *problem.Of(err)
	gone := p.Status >= fiber.StatusServiceUnavailable && conn.Gone(c.Context())
	if gone {
		p = *problem.Abandoned(p.Unwrap(), p.MayHaveBeenWritten)
	}
	p.Instance = string(c.Request().URI().PathOriginal())
	if p.Instance == "" { // the target could not be read
		p.Instance = "/"
	}
	p.Log(s.Logger, gone, c.Method(), correlationID(c))
	return p.Send(c)
}

// fromFiber words an error that the framework found before a handler ran.
func fromFiber(e *fiber.Error) *problem.Problem {
	switch e.Code {
	case fiber.StatusNotFound:
		return problem.New(e.Code, "there is nothing here; the resources are /chat-sessions, /chat-sessions/<id>, /chat-sessions/<id>/events and /chat-sessions/events")
	case fiber.StatusMethodNotAllowed:
		return problem.New(e.Code, "this resource does not have that method; Allow names those that it has")
	case fiber.StatusRequestHeaderFieldsTooLarge:
		return headTooLarge()
	case fiber.StatusBadRequest, fiber.StatusBadGateway: // 502 is the framework's status for a connection that broke
		return problem.BadRequest("the request cannot be read as HTTP/1.1: %s", withoutEcho(e.Message))
	}
	return problem.New(e.Code, "%s", e.Message)
}

// withoutEcho cuts the request out of the framework's message: it may hold the token.
func withoutEcho(message string) string {
	message, _, _ = strings.Cut(message, `"`)
	message, _, _ = strings.Cut(message, ": buffer size=")
	message = strings.TrimPrefix(message, "error when reading request headers: ")
	return strings.TrimRight(message, " :")
}

func headTooLarge() *problem.Problem {
	return problem.New(fiber.StatusRequestHeaderFieldsTooLarge,
		"a header may have %d bytes, all of them together with the request line %d", maxHeader, maxHead)
}
