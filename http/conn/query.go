package conn

import (
	"bytes"

	"github.com/gofiber/fiber/v2"
)

// Query returns what follows the first ? of the request target. It is a copy. Unlike Fiber's,
// it is not cut at a #, so a client need not encode a tagged number ($limit=#10).
func Query(c *fiber.Ctx) string {
	_, query, _ := bytes.Cut(c.Request().Header.RequestURI(), []byte{'?'})
	return string(query)
}
