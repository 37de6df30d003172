package conn

import (
	"bytes"

	"github.com/gofiber/fiber/v2"
)

// Query returns a copy of what follows the first ? of the target, with what follows a #.
func Query(c *fiber.Ctx) string {
	_, query, _ := bytes.Cut(c.Request().Header.RequestURI(), []byte{'?'})
	return string(query)
}
