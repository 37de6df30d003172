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
	c.Context().Hijack(func(conn net.Conn) { open(unwrap(conn), head) })
}

// unwrap returns the connection without the layers of fasthttp and of this package.
func unwrap(conn net.Conn) net.Conn {
	if hijacked, ok := conn.(interface{ UnsafeConn() net.Conn }); ok {
		conn = hijacked.UnsafeConn()
	}
	if own, ok := conn.(*connection); ok {
		conn = own.Conn
	}
	return conn
}
