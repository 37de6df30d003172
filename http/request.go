package http

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"mime"
	"strings"

	"github.com/gofiber/fiber/v2"

	"chatsessions/http/conn"
	"chatsessions/http/problem"
)

// What the middlewares leave for the handlers, and the headers that they read.
const (
	localCorrelation = "correlation"

	headerRequestID   = "X-Request-Id"
	headerTraceParent = "Traceparent"
)

// trace is a middleware that names the request: by X-Request-Id, or with a new id.
func (s *Server) trace(c *fiber.Ctx) error {
	id := strings.Clone(c.Get(headerRequestID))
	if id == "" || len(id) > 128 || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' }) {
		id = newID()
	}
	c.Locals(localCorrelation, id)
	c.Set(headerRequestID, id)
	return c.Next()
}

func correlationID(c *fiber.Ctx) string {
	id, _ := c.Locals(localCorrelation).(string) // absent if the head could not be read
	return id
}

// traceParent continues the caller's trace or begins one (W3C Trace Context, section 3.2).
func traceParent(given string) string {
	var random [24]byte
	_, _ = rand.Read(random[:]) // never fails (crypto/rand)
	id, span := random[:16], random[16:]
	// Not sampled. With the flag set, nats-server looks for a trace in every event.
	flags := "00"
	b := make([]byte, 0, len("00-")+2*len(random)+len("--00"))
	b = append(b, "00-"...)
	if parts := strings.Split(given, "-"); len(parts) == 4 && parts[0] == "00" && isTraceID(parts[1], 16) && isTraceID(parts[2], 8) && isHex(parts[3], 1) {
		b = append(b, parts[1]...)
		flags = parts[3]
	} else {
		b = hex.AppendEncode(b, id)
	}
	b = hex.AppendEncode(append(b, '-'), span)
	return string(append(append(b, '-'), flags...))
}

func isTraceID(s string, bytes int) bool {
	return isHex(s, bytes) && strings.Trim(s, "0") != ""
}

func isHex(s string, bytes int) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) == 2*bytes && strings.ToLower(s) == s
}

// checkHead is a middleware that limits the size of the URI and the headers.
func checkHead(c *fiber.Ctx) error {
	header := &c.Request().Header
	if conn.AmbiguousLength(header) {
		c.Context().SetConnectionClose()
		return problem.BadRequest("Transfer-Encoding needs HTTP/1.1, and no Content-Length beside it")
	}
	uri := len(header.RequestURI())
	if uri > maxURI {
		return problem.New(fiber.StatusRequestURITooLong, "the URI has %d bytes; it may have %d", uri, maxURI)
	}
	if uri+len(header.RawHeaders()) > maxHead {
		return headTooLarge()
	}
	for _, value := range header.All() {
		if len(value) > maxHeader {
			return headTooLarge()
		}
	}
	return c.Next()
}

// jsonBody returns the body of a write, if it can be JSON.
func jsonBody(c *fiber.Ctx) ([]byte, error) {
	r := conn.BodyOf(c)
	if r.TooLarge {
		return nil, problem.New(fiber.StatusRequestEntityTooLarge, "the body may have %d bytes", maxBody)
	}
	if err := checkContentType(c, len(r.Bytes) == 0); err != nil {
		return nil, err
	}
	if r.Err != nil {
		return nil, problem.BadRequest("the body could not be read: %v", r.Err)
	}
	return r.Bytes, nil
}

// checkContentType accepts JSON in UTF-8 that is not compressed. An empty body needs no
// type: the better error is that it is missing.
func checkContentType(c *fiber.Ctx, empty bool) error {
	const mergePatch = "application/merge-patch+json"
	patches := c.Method() == fiber.MethodPatch
	unsupported := func(format string, args ...any) *problem.Problem {
		p := problem.New(fiber.StatusUnsupportedMediaType, format, args...)
		if patches {
			return p.With("Accept-Patch", fiber.MIMEApplicationJSON+", "+mergePatch)
		}
		return p.With("Accept-Post", fiber.MIMEApplicationJSON)
	}
	if coding := c.Get(fiber.HeaderContentEncoding); coding != "" && !strings.EqualFold(coding, "identity") {
		return unsupported("Content-Encoding %q is not supported; send the body as it is", coding).With(fiber.HeaderAcceptEncoding, "identity")
	}
	given := c.Get(fiber.HeaderContentType)
	if given == "" && empty {
		return nil
	}
	media, params, err := mime.ParseMediaType(given)
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		return unsupported("Content-Type %q is not understood; send application/json", given)
	}
	if media != fiber.MIMEApplicationJSON && (media != mergePatch || !patches) {
		return unsupported("Content-Type %q is not supported; send application/json", given)
	}
	if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
		return unsupported("charset %q is not supported; JSON is UTF-8", charset)
	}
	return nil
}
