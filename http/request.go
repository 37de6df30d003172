package http

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"mime"
	"strings"

	"github.com/gofiber/fiber/v2"
)

// Where the middlewares leave what they found, for the handlers.
const (
	localCorrelation = "correlation"
	localTrace       = "traceparent"
	localBody        = "body"
	localTooLarge    = "too large"
	localCaller      = "caller"

	headerRequestID   = "X-Request-Id"
	headerTraceParent = "Traceparent"
)

// trace gives the request its names: X-Request-Id, the client's own or a new one,
// and a W3C trace context.
func (s *Server) trace(c *fiber.Ctx) error {
	id := strings.Clone(c.Get(headerRequestID))
	if !visibleASCII(id, 128) {
		id = newID()
	}
	c.Locals(localCorrelation, id)
	c.Locals(localTrace, traceParent(c.Get(headerTraceParent)))
	c.Set(headerRequestID, id)
	return c.Next()
}

func correlationID(c *fiber.Ctx) string {
	id, _ := c.Locals(localCorrelation).(string) // absent where the head could not be read
	return id
}

func visibleASCII(s string, most int) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != "" && len(s) <= most
}

// traceParent continues the caller's trace, or begins one
// (W3C Trace Context, section 3.2).
func traceParent(given string) string {
	var span [8]byte
	_, _ = rand.Read(span[:]) // never fails, crypto/rand says
	parts := strings.Split(given, "-")
	if len(parts) == 4 && parts[0] == "00" && isTraceID(parts[1], 16) && isTraceID(parts[2], 8) && isHex(parts[3], 1) {
		return "00-" + parts[1] + "-" + hex.EncodeToString(span[:]) + "-" + parts[3]
	}
	var id [16]byte
	_, _ = rand.Read(id[:])
	return "00-" + hex.EncodeToString(id[:]) + "-" + hex.EncodeToString(span[:]) + "-01"
}

func isTraceID(s string, bytes int) bool {
	return isHex(s, bytes) && strings.Trim(s, "0") != ""
}

func isHex(s string, bytes int) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) == 2*bytes && strings.ToLower(s) == s
}

// checkHead draws the lines for the size of the URI and the headers.
func checkHead(c *fiber.Ctx) error {
	header := &c.Request().Header
	uri := len(header.RequestURI())
	if uri > maxURI {
		return newProblem(fiber.StatusRequestURITooLong, "the URI has %d bytes; it may have %d", uri, maxURI)
	}
	if uri+len(header.RawHeaders()) > maxHead {
		return headTooLarge()
	}
	for name, value := range header.All() {
		if len(name)+len(value) > maxHeader {
			return headTooLarge()
		}
	}
	return c.Next()
}

// readBody takes the body in. What is wrong with it is said later, in its turn.
func readBody(c *fiber.Ctx) error {
	stream := c.Context().RequestBodyStream()
	if stream == nil {
		return c.Next()
	}
	body, err := io.ReadAll(io.LimitReader(stream, maxBody+1))
	length := c.Request().Header.ContentLength()
	switch {
	case len(body) > maxBody || length > maxBody:
		c.Locals(localTooLarge, true)
		// The rest is not read, so nothing else can be read from this connection.
		c.Context().SetConnectionClose()
	case err != nil:
		c.Context().SetConnectionClose()
		return badRequest("the body could not be read: %v", err)
	case length >= 0 && len(body) != length:
		c.Context().SetConnectionClose()
		return badRequest("the body ended after %d of %d bytes", len(body), length)
	}
	c.Locals(localBody, body)
	return c.Next()
}

// jsonBody returns the body of a write, or what keeps it from being read as JSON.
func jsonBody(c *fiber.Ctx) ([]byte, error) {
	if c.Locals(localTooLarge) != nil {
		return nil, newProblem(fiber.StatusRequestEntityTooLarge, "the body may have %d bytes", maxBody)
	}
	body, _ := c.Locals(localBody).([]byte)
	if err := checkContentType(c, len(body) == 0); err != nil {
		return nil, err
	}
	return body, nil
}

// checkContentType accepts JSON in UTF-8 that is not compressed. A body that is
// empty needs no type: that it is missing is the better thing to say.
func checkContentType(c *fiber.Ctx, empty bool) error {
	accepted := []string{fiber.MIMEApplicationJSON}
	if c.Method() == fiber.MethodPatch {
		accepted = append(accepted, "application/merge-patch+json")
	}
	unsupported := func(format string, args ...any) *problem {
		name := "Accept-Post"
		if c.Method() == fiber.MethodPatch {
			name = "Accept-Patch"
		}
		return newProblem(fiber.StatusUnsupportedMediaType, format, args...).with(name, strings.Join(accepted, ", "))
	}
	if coding := c.Get(fiber.HeaderContentEncoding); coding != "" && !strings.EqualFold(coding, "identity") {
		return unsupported("Content-Encoding %q is not supported; send the body as it is", coding).with(fiber.HeaderAcceptEncoding, "identity")
	}
	given := c.Get(fiber.HeaderContentType)
	if given == "" && empty {
		return nil
	}
	media, params, err := mime.ParseMediaType(given)
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		return unsupported("Content-Type %q is not understood; send application/json", given)
	}
	for _, a := range accepted {
		if media != a {
			continue
		}
		if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
			return unsupported("charset %q is not supported; JSON is UTF-8", charset)
		}
		return nil
	}
	return unsupported("Content-Type %q is not supported; send application/json", given)
}
