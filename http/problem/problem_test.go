package problem

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gofiber/fiber/v2"

	"chatsessions/domain"
)

func TestProblemNamesAreThoseOfFeathers(t *testing.T) {
	for status, want := range map[int][2]string{
		400: {"BadRequest", "bad-request"}, 401: {"NotAuthenticated", "not-authenticated"}, 403: {"Forbidden", "forbidden"},
		404: {"NotFound", "not-found"}, 405: {"MethodNotAllowed", "method-not-allowed"}, 408: {"Timeout", "timeout"},
		409: {"Conflict", "conflict"}, 412: {"PreconditionFailed", "precondition-failed"}, 413: {"PayloadTooLarge", "payload-too-large"},
		414: {"URITooLong", "uri-too-long"}, 415: {"UnsupportedMediaType", "unsupported-media-type"},
		422: {"Unprocessable", "unprocessable"}, 429: {"TooManyRequests", "too-many-requests"},
		431: {"RequestHeaderFieldsTooLarge", "request-header-fields-too-large"},
		500: {"GeneralError", "general-error"}, 503: {"Unavailable", "unavailable"}, 504: {"GatewayTimeout", "gateway-timeout"},
	} {
		if p := New(status, ""); p.Name != want[0] || p.ClassName != want[1] {
			t.Errorf("%d: %s, %s; want %v", status, p.Name, p.ClassName, want)
		}
	}
}

func TestTheTableOfErrors(t *testing.T) {
	session := domain.Session{State: domain.StateCreated, Version: 3}
	started := session
	started.State = domain.StateStarted
	started.Stamps[domain.Start] = &domain.Stamp{At: 7, By: "alice"}
	finished := started
	finished.State = domain.StateFinished
	finished.Stamps[domain.Finish] = &domain.Stamp{At: 9, By: "bob"}
	own := BadRequest("own %d", 1)
	fields := []domain.FieldError{{Pointer: "/a", Detail: "a is wrong"}, {Pointer: "/b", Detail: "b is wrong"}, {Pointer: "/c", Detail: "c is wrong"}}
	for _, tt := range []struct {
		err    error
		status int
		says   string // in the JSON
	}{
		{own, 400, `"detail":"own 1"`},
		{fmt.Errorf("wrapped: %w", own), 400, `"detail":"own 1"`},
		{fmt.Errorf("wrapped: %w", domain.ErrNotFound), 404, "no such session"},
		{&domain.InvalidError{Fields: fields}, 422, `"detail":"a is wrong; and 2 more, see errors"`},
		{&domain.InvalidError{Fields: fields[:2]}, 422, `"errors":[{"pointer":"/a","detail":"a is wrong"},{"pointer":"/b","detail":"b is wrong"}]`},
		{&domain.ForbiddenError{Fields: fields[:1]}, 403, `"detail":"a is wrong","instance"`},
		{&domain.PreconditionError{Version: 3}, 412, "at version 3"},
		{&domain.IllegalTransitionError{Session: session, Directive: domain.Finish}, 409, `possible now: start","instance"`},
		{&domain.IllegalTransitionError{Session: session, Directive: domain.Finish}, 409, `"state":"created","allowed":["start"]}`},
		{&domain.IllegalTransitionError{Session: started, Directive: domain.Start}, 409, `"allowed":["accept","reject"],"conflict":{"type":"chat-session.started","by":"alice","at":7}`},
		{&domain.IllegalTransitionError{Session: finished, Directive: domain.Start}, 409, `nothing is possible any more`},
		{domain.ErrKeyReused, 422, "a new request needs a new key"},
		{domain.ErrUnreadable, 503, "chatsessions parked"},
		{domain.ErrUnavailable, 503, "a correct answer"},
		{errors.New("secret"), 500, "wrong on our side"},
	} {
		p := Of(tt.err)
		text, err := json.Marshal(p)
		if err != nil || p.Status != tt.status || p.Code != tt.status || p.Type != "about:blank" || p.Message != p.Detail || !strings.Contains(string(text), tt.says) || strings.Contains(string(text), "secret") {
			t.Errorf("%v: %s, want %d with %s", tt.err, text, tt.status, tt.says)
		}
	}
	if Of(&domain.PreconditionError{Version: 3}).headers["Etag"] != "" || Of(&domain.PreconditionError{Version: 3}).headers["ETag"] != `"3"` {
		t.Error(Of(&domain.PreconditionError{Version: 3}).headers)
	}
	if !errors.Is(Of(fmt.Errorf("x: %w", domain.ErrUnavailable)), domain.ErrUnavailable) || Of(domain.ErrUnavailable).headers["Retry-After"] != "1" || Of(domain.ErrUnreadable).headers["Retry-After"] != "3600" {
		t.Error("a cause or a header is lost")
	}
	written := false
	if p := Abandoned(domain.ErrUnavailable, &written); p.Status != 503 || *p.MayHaveBeenWritten || Abandoned(nil, nil).MayHaveBeenWritten != nil {
		t.Errorf("%+v", p)
	}
	if p := Unavailable(nil, "x").Written(true); !*p.MayHaveBeenWritten {
		t.Error("not written")
	}
}

func TestAProblemIsSent(t *testing.T) {
	app := fiber.New(fiber.Config{ErrorHandler: func(c *fiber.Ctx, err error) error { return Of(err).Send(c) }})
	app.Get("/", func(*fiber.Ctx) error {
		return New(418, "<%s>", "x").With("X-A", "1").With("X-B", "2")
	})
	got, err := app.Test(httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	text, _ := io.ReadAll(got.Body)
	if got.StatusCode != 418 || got.Header.Get("X-A") != "1" || got.Header.Get("X-B") != "2" || got.Header.Get("Cache-Control") != "no-store" || got.Header.Get("Content-Type") != "application/problem+json" ||
		string(text) != `{"type":"about:blank","title":"I'm a teapot","status":418,"detail":"<x>","instance":"","name":"I'mateapot","message":"<x>","code":418,"className":"i'm-a-teapot"}`+"\n" {
		t.Errorf("%d %v %s", got.StatusCode, got.Header, text)
	}
}

func TestWhatIsLogged(t *testing.T) {
	for _, tt := range []struct {
		p    *Problem
		gone bool
		want string
	}{
		{New(404, "x"), false, ""}, {New(499, "x"), false, ""},
		{New(500, "x").Because(errors.New("the cause")), false, `level=ERROR msg="request failed" status=500 method=GET path=/p request=r1 error="the cause"`},
		{New(500, "detail"), false, "error=detail"}, {New(500, "detail"), true, "level=DEBUG"},
		{Unavailable(nil, "x").Quietly(), false, ""}, {Unavailable(errors.New("y"), "x"), true, "level=DEBUG"}, {Unavailable(errors.New("y"), "x"), false, "level=ERROR"},
		{New(504, "x"), false, "level=INFO"}, {New(504, "x"), true, "level=INFO"},
	} {
		var b bytes.Buffer
		tt.p.Instance = "/p"
		tt.p.Log(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug})), tt.gone, "GET", "r1")
		if got := b.String(); (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%d, gone %v: %q, want %q", tt.p.Status, tt.gone, got, tt.want)
		}
	}
}
