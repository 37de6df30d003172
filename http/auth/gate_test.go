package auth

import (
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"

	"chatsessions/http/problem"
)

func TestTheGate(t *testing.T) {
	at := time.UnixMilli(1_795_348_800_000)
	gate := NewGate(DevTokens{}, 1, func() time.Time { return at })
	app := fiber.New(fiber.Config{ErrorHandler: func(c *fiber.Ctx, err error) error { return problem.Of(err).Send(c) }})
	app.Get("/", gate.Authenticate, func(c *fiber.Ctx) error { return c.SendString(fmt.Sprint(Caller(c), " ", Token(c))) })
	app.Post("/", gate.Authenticate, func(c *fiber.Ctx) error {
		if err := CheckWriter(c); err != nil {
			return err
		}
		return c.SendString("written")
	})
	for _, tt := range []struct {
		method    string
		given     []string
		status    int
		challenge string
		says      string
	}{
		{"GET", nil, 401, "Bearer", "a token is needed"}, {"GET", []string{"Basic x"}, 401, "Bearer", "needed"}, {"GET", []string{"Bearer"}, 401, "Bearer", "needed"}, {"GET", []string{"Bearer   "}, 401, "Bearer", "needed"},
		{"GET", []string{"Bearer x"}, 401, `Bearer error="invalid_token"`, "not valid"}, {"GET", []string{"Bearer dev-account-a", "Bearer dev-account-b"}, 401, `Bearer error="invalid_token"`, "not valid"},
		{"GET", []string{"bEARER  dev-account-a "}, 200, "", "{a account} dev-account-a"}, {"POST", []string{"Bearer dev-account-a"}, 200, "", "written"},
		{"GET", []string{"Bearer dev-account-a"}, 429, "", "try again in 1 s"}, {"GET", []string{"Bearer dev-account-b"}, 200, "", "{b account}"},
		{"POST", []string{"Bearer dev-auditor-c"}, 403, `Bearer error="insufficient_scope"`, `the role \"auditor\"`},
	} {
		request := httptest.NewRequestWithContext(t.Context(), tt.method, "/", nil)
		request.Header["Authorization"] = tt.given
		got, err := app.Test(request)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(got.Body)
		_ = got.Body.Close()
		if got.StatusCode != tt.status || got.Header.Get("Www-Authenticate") != tt.challenge || !strings.Contains(string(text), tt.says) {
			t.Errorf("%s %q: %d, challenge %q, %s", tt.method, tt.given, got.StatusCode, got.Header.Get("Www-Authenticate"), text)
		}
	}
}

// fasthttp writes the next request into the memory of this one.
func TestATokenOutlivesItsRequest(t *testing.T) {
	app := fiber.New()
	app.Get("/", func(c *fiber.Ctx) error {
		token := Token(c)
		c.Request().Header.Set("Authorization", "Bearer xxxxxx")
		return c.SendString(token)
	})
	request := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
	request.Header.Set("Authorization", "Bearer secret")
	got, err := app.Test(request)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	if text, _ := io.ReadAll(got.Body); string(text) != "secret" {
		t.Errorf("the token became %s", text)
	}
}

func TestARateLimit(t *testing.T) {
	at := time.UnixMilli(0)
	l := newRateLimiter(2.4, func() time.Time { return at })
	for i := range 5 { // ⌈2 · 2.4⌉ at once
		if wait := l.wait("a"); wait != 0 {
			t.Fatalf("request %d waits %s", i, wait)
		}
	}
	for range 3 { // a refusal costs nothing
		if wait := l.wait("a"); wait <= 0 || wait > 417*time.Millisecond {
			t.Errorf("the sixth waits %s", wait)
		}
	}
	if l.wait("b") != 0 {
		t.Error("accounts share a limit")
	}
	at = at.Add(417 * time.Millisecond)
	if l.wait("a") != 0 || l.wait("a") == 0 {
		t.Error("the limit does not grow with time")
	}
	for _, none := range []float64{0, -1} {
		if newRateLimiter(none, nil).wait("a") != 0 {
			t.Errorf("%g limits", none)
		}
	}
	for wait, seconds := range map[time.Duration]string{time.Millisecond: "1", time.Second: "1", 1001 * time.Millisecond: "2", 90 * time.Second: "90"} {
		if p := problem.Of(tooManyRequests(wait)); !strings.Contains(p.Detail, "in "+seconds+" s") || p.Status != 429 {
			t.Errorf("%s: %s", wait, p.Detail)
		}
	}
}
