package http

import (
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"chatsessions/http/conn"
	"chatsessions/http/feed"
)

// An Observer is called with each request when its response is ready to be sent: the
// endpoint, the status, and how long that took from the request's head on, the transfer of
// its body included. It must be quick.
type Observer func(e Endpoint, status int, took time.Duration)

// statusClientGone (499): the client disconnected before the response. It is never sent.
// nginx uses the same number in its log.
const statusClientGone = 499

// An Endpoint is what requests are counted by.
type Endpoint int

// The endpoints, and EndpointOther for a resource or a method that does not exist.
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

// Route returns method and path as the documentation writes them, "other" for both where
// there are none. A HEAD counts as a GET.
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
		return fiber.MethodGet, feed.Path
	}
	return "other", "other"
}

// localEndpoint is the user value of a request that holds its Endpoint.
const localEndpoint = "endpoint"

// markEndpoints registers a first handler for each endpoint, which notes it for the
// Observer. It comes before everything that may refuse the request, so that refusals count
// for the endpoint too.
func (s *Server) markEndpoints() {
	for _, e := range Endpoints() {
		mark := func(c *fiber.Ctx) error {
			c.Context().SetUserValue(localEndpoint, e)
			return c.Next()
		}
		switch method, path := e.Route(); method {
		case fiber.MethodGet:
			s.app.Get(path, mark) // and HEAD
		case "other":
		default:
			s.app.Add(method, path, mark)
		}
	}
}

// observe calls the Observer with a request whose response is ready.
func (s *Server) observe(ctx *fasthttp.RequestCtx, took time.Duration) {
	e, marked := ctx.UserValue(localEndpoint).(Endpoint)
	if !marked {
		e = EndpointOther
	}
	status := ctx.Response.StatusCode()
	if status >= fiber.StatusServiceUnavailable && conn.Gone(ctx) {
		status = statusClientGone
	}
	s.Observe(e, status, took)
}
