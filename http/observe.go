package http

import (
	"bytes"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
)

// An Observer is told of each request when its answer is ready to be sent: what
// it asked for, the status, and how long it took from its head on, its body's way
// included. It must be quick.
type Observer func(e Endpoint, status int, took time.Duration)

// statusClientGone stands for the answer to a client that was gone by then. Nobody
// gets to see it; nginx calls it so in its log.
const statusClientGone = 499

func observedStatus(ctx *fasthttp.RequestCtx) int {
	status := ctx.Response.StatusCode()
	if status >= fiber.StatusServiceUnavailable && clientGone(ctx) {
		return statusClientGone
	}
	return status
}

// An Endpoint is what requests are told apart by when they are counted.
type Endpoint int

// The endpoints, and everything else: what does not exist, or not with that method.
const (
	EndpointCreate Endpoint = iota
	EndpointList
	EndpointGet
	EndpointChange
	EndpointHistory
	EndpointFeed
	EndpointOther
)

// Endpoints lists all of them, so that Endpoints()[e] == e.
func Endpoints() []Endpoint {
	return []Endpoint{EndpointCreate, EndpointList, EndpointGet, EndpointChange, EndpointHistory, EndpointFeed, EndpointOther}
}

// Route returns method and path as the documentation writes them; "other" for both
// where there is none. A HEAD counts as a GET.
func (e Endpoint) Route() (method, path string) {
	switch e {
	case EndpointCreate:
		return fiber.MethodPost, pathSessions
	case EndpointList:
		return fiber.MethodGet, pathSessions
	case EndpointGet:
		return fiber.MethodGet, pathSession
	case EndpointChange:
		return fiber.MethodPatch, pathSession
	case EndpointHistory:
		return fiber.MethodGet, pathHistory
	case EndpointFeed:
		return fiber.MethodGet, pathEvents
	}
	return "other", "other"
}

// endpointOf tells what a request asks for, by the rules of the router: a slash at
// the end does not count.
func endpointOf(ctx *fasthttp.RequestCtx) Endpoint {
	path := bytes.TrimSuffix(ctx.URI().PathOriginal(), []byte{'/'})
	header := &ctx.Request.Header
	reads := header.IsGet() || header.IsHead()
	if string(path) == pathSessions {
		switch {
		case reads:
			return EndpointList
		case header.IsPost():
			return EndpointCreate
		}
		return EndpointOther
	}
	if string(path) == pathEvents && reads {
		return EndpointFeed
	}
	id, ok := bytes.CutPrefix(path, []byte(pathSessions+"/"))
	id, history := bytes.CutSuffix(id, []byte("/events"))
	if !ok || bytes.IndexByte(id, '/') >= 0 {
		return EndpointOther
	}
	switch {
	case history && reads:
		return EndpointHistory
	case history:
	case reads:
		return EndpointGet
	case header.IsPatch():
		return EndpointChange
	}
	return EndpointOther
}
