package consistency

import (
	"bytes"
	"fmt"
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

func TestRepetitionsAtOnceOnTwoNodesWriteOneEventAndGetOneAnswer(t *testing.T) {
	onSeveralNodes(t, func(t *testing.T, nodes []*rig.Service) {
		created := repeatAtOnce(t, nodes, "POST", "/chat-sessions", `{"room": "once", "participants": ["bob"]}`, "the first")
		path := created.Header.Get("Location")
		changed := repeatAtOnce(t, nodes, "PATCH", path, `{"start": true, "accept": true}`, "the second")
		repeatAtOnce(t, nodes, "PATCH", path, `{"room": "elsewhere"}`, "the third")

		// The log holds what one request of each leads to.
		if events := nodes[0].Log(); len(events) != 4 {
			t.Errorf("the log has %d events, want created, started, accepted, updated", len(events))
		}
		// And the answers stay, whatever came since.
		alice := nodes[1].As("account-alice")
		sameAnswer(t, created, alice.Expect(200, "POST", "/chat-sessions", `{"room": "once", "participants": ["bob"]}`, "Idempotency-Key: the first"))
		sameAnswer(t, changed, alice.Expect(200, "PATCH", path, `{"start": true, "accept": true}`, "Idempotency-Key: the second"))
		alice.Expect(422, "PATCH", path, `{"start": true}`, "Idempotency-Key: the second")
		// Another caller's key is another key.
		nodes[0].As("account-bob").Expect(409, "PATCH", path, `{"start": true, "accept": true}`, "Idempotency-Key: the second")
	})
}

// repeatAtOnce sends the same request twenty times at once, spread over the nodes, and
// returns the answer that all got.
func repeatAtOnce(t *testing.T, nodes []*rig.Service, method, path, body, key string) rig.Answer {
	t.Helper()
	answers := make([]rig.Answer, 20)
	rig.AtOnce(t, len(answers), func(i int) (err error) {
		answers[i], err = nodes[i%len(nodes)].As("account-alice").Do(method, path, body, "Idempotency-Key: "+key)
		return err
	})
	for _, a := range answers {
		if a.Status != 200 {
			t.Fatalf("%s %s: %d %s", method, path, a.Status, a.Body)
		}
		sameAnswer(t, answers[0], a)
	}
	return answers[0]
}

func TestAfterASigkillAKeyGivesTheFirstAnswerAgain(t *testing.T) {
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		alice := s.As("account-alice")
		const body, change = `{"startedAt": 1, "createdAt": 1, "room": "r"}`, `{"accept": true, "finish": "bye"}`
		created := alice.Expect(200, "POST", "/chat-sessions", body, "Idempotency-Key: k")
		path := created.Header.Get("Location")
		changed := alice.Expect(200, "PATCH", path, change, "Idempotency-Key: k")
		alice.Expect(200, "PATCH", path, `{"room": "later"}`)
		before := len(s.Log())

		s.Kill()
		s.Start()
		alice = s.As("account-alice")
		sameAnswer(t, created, alice.Expect(200, "POST", "/chat-sessions", body, "Idempotency-Key: k"))
		sameAnswer(t, changed, alice.Expect(200, "PATCH", path, change, "Idempotency-Key: k"))
		// The replay comes before the condition.
		sameAnswer(t, changed, alice.Expect(200, "PATCH", path, change, "Idempotency-Key: k", `If-Match: "1"`))
		if after := len(s.Log()); after != before {
			t.Errorf("repetitions wrote %d events", after-before)
		}
	})
}

func TestAKeyTurnsAnUnknownOutcomeIntoExactlyOneWrite(t *testing.T) {
	servers := rig.StartServers(t)
	s := rig.Start(t, servers.Flags()...)
	const writers = 40
	accepted := make(chan struct{}, writers)
	answers := make([]rig.Answer, writers)
	done := make(chan struct{})
	request := func(i int) (rig.Answer, error) {
		return s.As("account-alice").Do("POST", "/chat-sessions", `{"startedAt": 1, "createdAt": 1}`, fmt.Sprintf("Idempotency-Key: %d", i))
	}
	go func() {
		defer close(done)
		rig.AtOnce(t, writers, func(i int) (err error) {
			answers[i], err = request(i)
			accepted <- struct{}{}
			return err
		})
	}()
	<-accepted // some are answered, the others on their way
	servers.NATS.Kill()
	<-done
	servers.NATS.Restart()

	for i, first := range answers {
		rig.Eventually(t, func() error {
			again, err := request(i)
			if err != nil || again.Status != 200 {
				return again.Instead(err)
			}
			if first.Status == 200 {
				sameAnswer(t, first, again)
			}
			return nil
		})
	}
	events := s.Log()
	s.Verify()
	if len(events) != 2*writers {
		t.Errorf("%d requests of two events each led to %d", writers, len(events))
	}
}

// sameAnswer fails the test unless a repetition was answered like the first request.
func sameAnswer(t *testing.T, first, again rig.Answer) {
	t.Helper()
	if first.Status != again.Status || !bytes.Equal(first.Body, again.Body) {
		t.Errorf("first answered %d %s, then %d %s", first.Status, first.Body, again.Status, again.Body)
	}
	for _, header := range []string{"ETag", "Location", "Chat-Sessions-Position", "Ignored-Fields", "Content-Type"} {
		if a, b := first.Header.Get(header), again.Header.Get(header); a != b {
			t.Errorf("first answered %s %q, then %q", header, a, b)
		}
	}
}
