package http

import (
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"chatsessions/http/conn"
	"chatsessions/http/feed"
)

// An Observer is called when a response is ready to be sent. took begins with the request's
// head. It must be quick.
type Observer func(e Endpoint, status int, took time.Duration)

// statusClientGone (499, as in nginx): the client disconnected before the response.
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

// Route returns method and path as documented, or "other" for both. A HEAD counts as a GET.
func (e Endpoint) Route() (method, path string) {
	route := [...][2]string{
		EndpointCreate:  {fiber.MethodPost, pathSessions},
		EndpointList:    {fiber.MethodGet, pathSessions},
		EndpointGet:     {fiber.MethodGet, pathSession},
		EndpointChange:  {fiber.MethodPatch, pathSession},
		EndpointHistory: {fiber.MethodGet, pathHistory},
		EndpointFeed:    {fiber.MethodGet, feed.Path},
		EndpointOther:   {"other", "other"},
	}[e]
	return route[0], route[1]
}

// localEndpoint is the user value of a request that holds its Endpoint.
const localEndpoint = "endpoint"

// markEndpoints notes each endpoint for the Observer before the request may be refused.
func (s *Server) markEndpoints() {
	for e := range EndpointOther {
		mark := func(c *fiber.Ctx) error {
			c.Context().SetUserValue(localEndpoint, e)
			return c.Next()
		}
		method, path := e.Route()
		s.app.Add(method, path, mark)
		if method == fiber.MethodGet {
			s.app.Head(path, mark)
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
