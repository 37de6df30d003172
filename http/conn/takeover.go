package conn

import (
	"bytes"
	"net"

	"github.com/gofiber/fiber/v2"
)

// TakeOver ends HTTP on a connection: open gets it with the head of the response, which it must
// send. The stream ends with the connection.
func TakeOver(c *fiber.Ctx, open func(conn net.Conn, head []byte)) {
	header := &c.Response().Header
	header.SetContentLength(-2)
	head := bytes.Clone(header.Header())
	c.Context().HijackSetNoResponse(true)
	own := c.Context().Conn().(*connection).Conn // not wrapped by fasthttp or this package
	c.Context().Hijack(func(net.Conn) { open(own, head) })
}
