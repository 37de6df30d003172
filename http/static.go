package http

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/gofiber/fiber/v2"
)

// cachePublicly lets a cache answer for an hour. The documents belong to the program, and
// their formats only grow.
const cachePublicly = "public, max-age=3600"

// Static serves an unchanging document, with or without a token. Call it before Serve.
func (s *Server) Static(path, contentType string, content []byte) {
	sum := sha256.Sum256(content)
	etag := `"` + hex.EncodeToString(sum[:16]) + `"`
	s.app.Get(path, func(c *fiber.Ctx) error {
		known, err := parseTags(fiber.HeaderIfNoneMatch, wholeList(c, fiber.HeaderIfNoneMatch))
		if err != nil {
			return err
		}
		c.Set(fiber.HeaderETag, etag)
		c.Set(fiber.HeaderCacheControl, cachePublicly)
		if known.holds(etag, true) {
			return c.SendStatus(fiber.StatusNotModified)
		}
		c.Set(fiber.HeaderContentType, contentType)
		return c.Send(content)
	})
}
