package feed

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"chatsessions/cmd/systemtest/rig"
)

// A rawClient is a connection on which a test does what an HTTP library would not.
type rawClient struct {
	*net.TCPConn
	answers *bufio.Reader
}

func dial(s *rig.Service) rawClient {
	s.T.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		s.T.Fatal(err)
	}
	s.T.Cleanup(func() { c.Close() })
	return rawClient{c.(*net.TCPConn), bufio.NewReader(c)}
}

func (c rawClient) send(t *testing.T, method, path, body string, headers ...string) {
	t.Helper()
	_, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer dev-service-crm\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n%s",
		method, path, len(body), strings.Join(append(headers, ""), "\r\n"), body)
	if err != nil {
		t.Fatal(err)
	}
}

func (c rawClient) receive() (rig.Answer, error) {
	_ = c.SetReadDeadline(time.Now().Add(rig.Patience))
	response, err := http.ReadResponse(c.answers, nil)
	if err != nil {
		return rig.Answer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return rig.Answer{Status: response.StatusCode, Header: response.Header, Body: body}, err
}

// inFlight waits until so many commands are in flight.
func inFlight(s *rig.Service, want float64) {
	s.T.Helper()
	rig.Eventually(s.T, func() error {
		if got := s.Metrics()["chatsessions_commands_in_flight"]; got != want {
			return fmt.Errorf("%v commands in flight, want %v", got, want)
		}
		return nil
	})
}

func TestCommandsBeyondTheLimitAreRefusedAtOnce(t *testing.T) {
	const limit = 12
	servers := rig.StartServers(t)
	s := rig.Start(t, append(servers.Flags(), "--ops-listen", "127.0.0.1:0", "--max-commands", fmt.Sprint(limit))...)
	crm := s.As("service-crm")
	path := crm.Create(`{"room": "before"}`)
	before := crm.Expect(200, "GET", path, "")

	servers.NATS.Pause()
	began := time.Now() // five seconds from now on the commands are answered, and the places free
	var clients []rawClient
	for i := range limit {
		c, method, to := dial(s), "POST", "/chat-sessions"
		if i == 0 {
			method, to = "PATCH", path // its session is in memory, so it is sent to the log at once
		}
		c.send(t, method, to, `{"room": "in between"}`, fmt.Sprintf("X-Request-Id: waits-%d", i))
		clients = append(clients, c)
	}
	halfClosed, patient, leaving := clients[:2], clients[2], clients[3:]
	// The patient one has sent its next request already.
	patient.send(t, "POST", "/chat-sessions", `{}`, "X-Request-Id: pipelined")
	inFlight(s, limit)

	// Reads have no part in it. They answer with what was before, or that they don't know;
	// to find that out can take them seconds.
	var reading sync.WaitGroup
	defer reading.Wait()
	reading.Go(func() {
		if a, err := crm.Do("GET", path, ""); err != nil || a.Status == 200 && !bytes.Equal(a.Body, before.Body) || a.Status != 200 && (a.Status != 503 || bytes.Contains(a.Body, []byte("in flight"))) {
			t.Error(a.Instead(err))
		}
	})

	fastest := rig.Patience
	for range 20 {
		asked := time.Now()
		refused := crm.Expect(503, "POST", "/chat-sessions", `{}`, "X-Request-Id: refused")
		o := refused.Object(t)
		if o["mayHaveBeenWritten"] != false || o["name"] != "Unavailable" || refused.Header.Get("Retry-After") == "" || !strings.Contains(o["detail"].(string), "in flight") {
			t.Errorf("refused with %v %v", refused.Header, o)
		}
		fastest = min(fastest, time.Since(asked))
	}
	if fastest > 200*time.Millisecond { // what is held up by others is not held up each time
		t.Errorf("nobody was refused before %s had passed, not at once", fastest)
	}
	crm.Expect(503, "PATCH", path, `{"room": "after"}`, "X-Request-Id: refused")
	crm.Expect(503, "PATCH", path, `not JSON`)
	// What is wrong with the caller is said first.
	(&rig.Client{T: t, URL: s.URL, Token: "wrong"}).Expect(401, "POST", "/chat-sessions", `{}`)
	s.As("auditor-eve").Expect(403, "PATCH", path, `{"room": "after"}`)
	crm.Expect(405, "DELETE", path, "")
	if got := s.Metrics()[`chatsessions_commands_rejected_total`]; got != 22 {
		t.Errorf("%v commands counted as rejected, want 22", got)
	}

	// Clients go away: some in order, some with a reset.
	left := time.Now()
	for i, c := range leaving {
		if i%2 == 0 {
			_ = c.SetLinger(0)
		}
		c.Close()
	}
	for _, c := range halfClosed {
		_ = c.CloseWrite()
	}
	inFlight(s, 1) // the patient one
	freed := time.Now()
	t.Logf("%d places were free %s after their clients had left, %s after the first request", limit-1, freed.Sub(left), freed.Sub(began))
	if freed.Sub(began) > 5*time.Second { // by then every command is answered anyway
		t.Errorf("the places were freed %s after the requests", freed.Sub(began))
	}
	// A client that still listens gets the truth.
	notWritten := map[string]bool{"refused": true}
	for i, c := range halfClosed {
		answer, err := c.receive()
		if err != nil || answer.Status != 503 || !bytes.Contains(answer.Body, []byte("closed")) {
			t.Fatal(answer.Instead(err))
		}
		may, said := answer.Object(t)["mayHaveBeenWritten"].(bool)
		if !said || i == 0 && !may {
			t.Error(answer.Instead(nil))
		}
		notWritten[fmt.Sprintf("waits-%d", i)] = !may
	}
	if got := s.Metrics()["chatsessions_http_clients_gone_total"]; got != limit-1 {
		t.Errorf("%v clients counted as gone, want %d", got, limit-1)
	}
	// The places are there for others.
	next := dial(s)
	next.send(t, "POST", "/chat-sessions", `{}`, "X-Request-Id: next")
	inFlight(s, 2)

	reading.Wait()
	servers.NATS.Resume()
	for _, c := range []rawClient{patient, patient, next} {
		a, err := c.receive()
		if err != nil || a.Status != 200 && (a.Status != 503 || a.Object(t)["mayHaveBeenWritten"] == nil) || bytes.Contains(a.Body, []byte("closed")) {
			t.Error(a.Instead(err))
		}
	}
	inFlight(s, 0)
	rig.Eventually(t, func() error {
		if a, err := crm.Do("PATCH", path, `{"room": "healed"}`); err != nil || a.Status != 200 {
			return a.Instead(err)
		}
		return nil
	})
	for _, e := range s.SettledLog() {
		if id := e.Header["ce-correlationid"][0]; notWritten[id] {
			t.Errorf("%s was told that nothing was written", id)
		}
	}
}

func TestAManyTimesTheLimitNeitherHangsNorLosesPlaces(t *testing.T) {
	s := rig.Start(t, "--dev", "--ops-listen", "127.0.0.1:0", "--max-commands", "4")
	crm := s.As("service-crm")
	path := crm.Create(`{}`)
	rig.AtOnce(t, 200, func(i int) error {
		a, err := crm.Do("PATCH", path, fmt.Sprintf(`{"room": "r%d"}`, i))
		if err != nil || a.Status != 200 && (a.Status != 503 || a.Header.Get("Retry-After") == "") {
			return a.Instead(err)
		}
		return nil
	})
	inFlight(s, 0)
	crm.Expect(200, "PATCH", path, `{"room": "last"}`)
}

func TestAReadWhoseClientLeftWaitsNoLonger(t *testing.T) {
	s := rig.Start(t, "--dev", "--ops-listen", "127.0.0.1:0")
	path := s.As("service-crm").Create(`{}`)
	const far = "Chat-Sessions-Position: 1000000"
	began := time.Now()
	leaving, listening := dial(s), dial(s)
	for _, c := range []rawClient{leaving, listening} {
		c.send(t, "GET", path, "", far)
	}
	leaving.Close()
	_ = listening.CloseWrite()
	a, err := listening.receive()
	took := time.Since(began)
	if err != nil || a.Status != 503 || a.Object(t)["mayHaveBeenWritten"] != nil || a.Header.Get("Retry-After") == "" {
		t.Error(a.Instead(err))
	}
	if took > 4*time.Second {
		t.Errorf("it waited for %s; without its client's leaving it would have been 5 s", took)
	}
	rig.Eventually(t, func() error {
		got := s.Metrics()
		if got["chatsessions_http_clients_gone_total"] != 2 || got[`chatsessions_http_requests_total{method="GET",route="/chat-sessions/:id",status="499"}`] != 2 {
			return errors.New("not counted: " + fmt.Sprint(got["chatsessions_http_clients_gone_total"]))
		}
		return nil
	})
	// A client that stays and is slow is another matter.
	staying := dial(s)
	staying.send(t, "GET", path, "", far)
	if a, err := staying.receive(); err != nil || a.Status != 504 {
		t.Error(a.Instead(err))
	}
}
