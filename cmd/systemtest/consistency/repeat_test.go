package main

import (
	"bytes"
	"fmt"
	"testing"
)

func TestRepetitionsAtOnceOnTwoNodesWriteOneEventAndGetOneAnswer(t *testing.T) {
	onSeveralNodes(t, func(t *testing.T, nodes []*service) {
		created := repeatAtOnce(t, nodes, "POST", "/chat-sessions", `{"room": "once", "participants": ["bob"]}`, "the first")
		path := created.header.Get("Location")
		changed := repeatAtOnce(t, nodes, "PATCH", path, `{"start": true, "accept": true}`, "the second")
		repeatAtOnce(t, nodes, "PATCH", path, `{"room": "elsewhere"}`, "the third")

		// The log holds what one request of each leads to.
		if events := nodes[0].log(); len(events) != 4 {
			t.Errorf("the log has %d events, want created, started, accepted, updated", len(events))
		}
		// And the answers stay, whatever came since.
		alice := nodes[1].as("account-alice")
		sameAnswer(t, created, alice.expect(200, "POST", "/chat-sessions", `{"room": "once", "participants": ["bob"]}`, "Idempotency-Key: the first"))
		sameAnswer(t, changed, alice.expect(200, "PATCH", path, `{"start": true, "accept": true}`, "Idempotency-Key: the second"))
		alice.expect(422, "PATCH", path, `{"start": true}`, "Idempotency-Key: the second")
		// Another caller's key is another key.
		nodes[0].as("account-bob").expect(409, "PATCH", path, `{"start": true, "accept": true}`, "Idempotency-Key: the second")
	})
}

// repeatAtOnce sends the same request twenty times at once, spread over the nodes, and
// returns the answer that all got.
func repeatAtOnce(t *testing.T, nodes []*service, method, path, body, key string) answer {
	t.Helper()
	answers := make([]answer, 20)
	atOnce(t, len(answers), func(i int) (err error) {
		answers[i], err = nodes[i%len(nodes)].as("account-alice").do(method, path, body, "Idempotency-Key: "+key)
		return err
	})
	for _, a := range answers {
		if a.status != 200 {
			t.Fatalf("%s %s: %d %s", method, path, a.status, a.body)
		}
		sameAnswer(t, answers[0], a)
	}
	return answers[0]
}

func TestAfterASigkillAKeyGivesTheFirstAnswerAgain(t *testing.T) {
	onAllSetups(t, func(t *testing.T, s *service) {
		alice := s.as("account-alice")
		const body, change = `{"startedAt": 1, "createdAt": 1, "room": "r"}`, `{"accept": true, "finish": "bye"}`
		created := alice.expect(200, "POST", "/chat-sessions", body, "Idempotency-Key: k")
		path := created.header.Get("Location")
		changed := alice.expect(200, "PATCH", path, change, "Idempotency-Key: k")
		alice.expect(200, "PATCH", path, `{"room": "later"}`)
		before := len(s.log())

		s.kill()
		s.start()
		alice = s.as("account-alice")
		sameAnswer(t, created, alice.expect(200, "POST", "/chat-sessions", body, "Idempotency-Key: k"))
		sameAnswer(t, changed, alice.expect(200, "PATCH", path, change, "Idempotency-Key: k"))
		// The replay comes before the condition.
		sameAnswer(t, changed, alice.expect(200, "PATCH", path, change, "Idempotency-Key: k", `If-Match: "1"`))
		if after := len(s.log()); after != before {
			t.Errorf("repetitions wrote %d events", after-before)
		}
	})
}

func TestAKeyTurnsAnUnknownOutcomeIntoExactlyOneWrite(t *testing.T) {
	servers := startServers(t)
	s := startService(t, servers.flags()...)
	const writers = 40
	accepted := make(chan struct{}, writers)
	answers := make([]answer, writers)
	done := make(chan struct{})
	request := func(i int) (answer, error) {
		return s.as("account-alice").do("POST", "/chat-sessions", `{"startedAt": 1, "createdAt": 1}`, fmt.Sprintf("Idempotency-Key: %d", i))
	}
	go func() {
		defer close(done)
		atOnce(t, writers, func(i int) (err error) {
			answers[i], err = request(i)
			accepted <- struct{}{}
			return err
		})
	}()
	<-accepted // some are answered, the others on their way
	servers.nats.Kill()
	<-done
	servers.nats.Restart()

	for i, first := range answers {
		eventually(t, func() error {
			again, err := request(i)
			if err != nil || again.status != 200 {
				return again.instead(err)
			}
			if first.status == 200 {
				sameAnswer(t, first, again)
			}
			return nil
		})
	}
	events := s.log()
	checkChains(t, events)
	if len(events) != 2*writers {
		t.Errorf("%d requests of two events each led to %d", writers, len(events))
	}
}

// sameAnswer fails the test unless a repetition was answered like the first request.
func sameAnswer(t *testing.T, first, again answer) {
	t.Helper()
	if first.status != again.status || !bytes.Equal(first.body, again.body) {
		t.Errorf("first answered %d %s, then %d %s", first.status, first.body, again.status, again.body)
	}
	for _, header := range []string{"ETag", "Location", "Chat-Sessions-Position", "Ignored-Fields", "Content-Type"} {
		if a, b := first.header.Get(header), again.header.Get(header); a != b {
			t.Errorf("first answered %s %q, then %q", header, a, b)
		}
	}
}
