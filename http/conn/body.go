package conn

import (
	"bytes"
	"errors"
	"io"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
)

const (
	localBody = "body"

	// maxDiscard bounds what is read only so that a client that still sends gets its response.
	maxDiscard = 16 << 20
	// usualBody is how many bytes are allocated for a body before any of it has arrived.
	usualBody = 4 << 10
)

// A Body is the body of a request, or why it could not be read.
type Body struct {
	Bytes    []byte
	TooLarge bool
	Err      error

	cut bool // there is more on the connection
}

// BodyOf returns the body that TakeBody read.
func BodyOf(c *fiber.Ctx) Body {
	b, _ := c.Locals(localBody).(Body)
	return b
}

// TakeBody returns a middleware that reads the body, up to limit bytes: what is left of it on the
// connection would be read as the next request. Errors are reported later, in their turn. The app
// must stream bodies (fiber.Config.StreamRequestBody).
func TakeBody(limit int) fiber.Handler {
	return func(c *fiber.Ctx) error {
		header := &c.Request().Header
		stream := c.Context().RequestBodyStream()
		if stream == nil {
			return c.Next()
		}
		var b Body
		length := header.ContentLength()
		if length > maxDiscard || AmbiguousLength(header) {
			b.TooLarge = true
			c.Context().SetConnectionClose()
		} else if b = readBody(stream, length, limit); b.Err != nil || b.cut {
			c.Context().SetConnectionClose()
		}
		c.Locals(localBody, b)
		return c.Next()
	}
}

// readBody reads a body of the declared length, which is negative where none was declared.
func readBody(stream io.Reader, length, limit int) Body {
	var body []byte
	var err error
	if 0 <= length && length <= usualBody {
		body = make([]byte, length)
		var n int
		n, err = io.ReadFull(stream, body)
		if body = body[:n]; errors.Is(err, io.EOF) {
			err = nil // see below
		}
	} else {
		body, err = io.ReadAll(io.LimitReader(stream, int64(limit)+1))
	}
	switch {
	case err != nil:
		return Body{Err: err}
	case len(body) > limit:
		// All of it has to be read, or the connection ends.
		_, err := io.CopyN(io.Discard, stream, maxDiscard)
		return Body{TooLarge: true, cut: !errors.Is(err, io.EOF)}
	case length >= 0 && len(body) != length: // fasthttp mistakes the connection's end for the body's
		return Body{Err: io.ErrUnexpectedEOF}
	}
	return Body{Bytes: body}
}

// AmbiguousLength reports whether the head declares the body's length in two ways. A proxy
// may have believed the other one (RFC 9112, section 6.1).
func AmbiguousLength(header *fasthttp.RequestHeader) bool {
	var length, coding bool
	for line := range bytes.SplitSeq(header.RawHeaders(), []byte{'\n'}) {
		name, _, _ := bytes.Cut(line, []byte{':'})
		length = length || bytes.EqualFold(name, []byte(fiber.HeaderContentLength))
		coding = coding || bytes.EqualFold(name, []byte(fiber.HeaderTransferEncoding))
	}
	return coding && (length || !header.IsHTTP11())
}
