package problem

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"

	"github.com/gofiber/fiber/v2"
)

// Send writes the problem as the response.
func (p *Problem) Send(c *fiber.Ctx) error {
	for name, value := range p.headers {
		c.Set(name, value)
	}
	c.Status(p.Status).Set(fiber.HeaderContentType, "application/problem+json")
	c.Set(fiber.HeaderCacheControl, "no-store")
	encoder := json.NewEncoder(c.Response().BodyWriter())
	encoder.SetEscapeHTML(false) // it is JSON, and read by people
	return encoder.Encode(p)
}

// Log logs a defect or an outage. A refusal is not logged, nor is a problem that is
// reported in another place. gone is true for a client that did not wait.
func (p *Problem) Log(logger *slog.Logger, gone bool, method, request string) {
	if p.Status < http.StatusInternalServerError || p.quiet {
		return
	}
	level, cause := slog.LevelError, error(p)
	if p.cause != nil {
		cause = p.cause
	}
	switch {
	case p.Status == http.StatusGatewayTimeout:
		level = slog.LevelInfo // the client asked for a position that does not exist yet
	case gone:
		level = slog.LevelDebug
	}
	logger.Log(context.Background(), level, "request failed", "status", p.Status, "method", method,
		"path", p.Instance, "request", request, "error", cause)
}
