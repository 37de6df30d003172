package conn

import (
	"bytes"
	"net"

	"github.com/gofiber/fiber/v2"
)

// TakeOver ends HTTP on the connection of a request: open gets the connection, and the head
// of the response, which it must send. The stream ends with the connection, so it has
// neither a length nor chunks.
func TakeOver(c *fiber.Ctx, open func(conn net.Conn, head []byte)) {
	header := &c.Response().Header
	header.SetContentLength(-2)
	head := bytes.Clone(header.Header())
	c.Context().HijackSetNoResponse(true)
	own := c.Context().Conn().(*connection).Conn // not wrapped by fasthttp or this package
	c.Context().Hijack(func(net.Conn) { open(own, head) })
}
