package contract

import (
	"fmt"
	"sync"
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

// firstAnswer checks that an answer is the first one, again.
func firstAnswer(t *testing.T, what string, again, first rig.Answer) {
	t.Helper()
	if again.Status != first.Status || string(again.Body) != string(first.Body) {
		t.Errorf("%s: %d %s; the first answer was %d %s", what, again.Status, again.Body, first.Status, first.Body)
	}
	for _, name := range []string{"ETag", "Location", "Chat-Sessions-Position", "Ignored-Fields", "Content-Type"} {
		if got, want := again.Header.Get(name), first.Header.Get(name); got != want {
			t.Errorf("%s: %s is %q; in the first answer it was %q", what, name, got, want)
		}
	}
}

// TestARepeatedRequestGetsItsFirstAnswer, whatever happened to the session since.
func TestARepeatedRequestGetsItsFirstAnswer(t *testing.T) {
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		alice, bob := s.As("account-alice"), s.As("account-bob")
		const key = "Idempotency-Key: k-1"
		post := `{"participants":["bob"],"title":"x","room":"r"}`
		created := alice.Expect(200, "POST", "/chat-sessions", post, key)
		path := created.Header.Get("Location")
		if id := fmt.Sprint(created.Object(t)["id"]); !uuidV8.MatchString(id) {
			t.Errorf("the id %s of a POST with a key is not a UUIDv8", id)
		}
		repeatPost := func(when string) {
			t.Helper()
			firstAnswer(t, "POST again, "+when, alice.Expect(200, "POST", "/chat-sessions", post, key), created)
		}
		repeatPost("at once")

		start := `{"start":true,"seen":true}`
		started := bob.Expect(200, "PATCH", path, start, key)
		repeatStart := func(when string, headers ...string) {
			t.Helper()
			firstAnswer(t, "PATCH again, "+when, bob.Expect(200, "PATCH", path, start, append(headers, key)...), started)
		}
		repeatStart("at once")
		repeatPost("after a PATCH")

		patch(alice, path, `{"accept":true,"finish":"done"}`)
		repeatStart("where it would be illegal now")
		repeatStart("with a stale condition", `If-Match: "1"`)
		patch(alice, path, `{"participants":null}`)
		refused(bob, 404, "GET", path, "")
		repeatStart("by who lost sight of the session")
		refused(bob, 404, "PATCH", path, start, "Idempotency-Key: k-2")
		repeatPost("after the end")
		has(t, alice.Get(path), members{"version": 5, "state": "finished"})
		same(t, "sessions", ids(alice.Expect(200, "GET", "/chat-sessions", "").List(t)), []string{idOf(path)})
	})
}

// TestARepetitionSpeaksTheFirstAnswerOfAWriteOfSeveralEvents.
func TestARepetitionSpeaksTheFirstAnswerOfAWriteOfSeveralEvents(t *testing.T) {
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		alice := s.As("account-alice")
		post := fmt.Sprintf(`{"createdAt":%d,"startedAt":%d}`, longAgo, longAgo)
		created := alice.Expect(200, "POST", "/chat-sessions", post, "Idempotency-Key: import")
		path := created.Header.Get("Location")
		change := `{"finish":"x","accept":true,"room":"r"}`
		patched := alice.Expect(200, "PATCH", path, change, "Idempotency-Key: all")
		has(t, patched.Object(t), members{"version": 5})
		patch(alice, path, `{"room":"later"}`)
		firstAnswer(t, "POST", alice.Expect(200, "POST", "/chat-sessions", post, "Idempotency-Key: import"), created)
		firstAnswer(t, "PATCH", alice.Expect(200, "PATCH", path, change, "Idempotency-Key: all"), patched)
		has(t, alice.Get(path), members{"version": 6, "room": "later"})
	})
}

// TestAKeyBelongsToCallerMethodAndPath: the same one elsewhere is another.
func TestAKeyBelongsToCallerMethodAndPath(t *testing.T) {
	s := rig.Start(t, "--dev")
	alice, bob := s.As("account-alice"), s.As("account-bob")
	const key, body = "Idempotency-Key: k", `{"participants":["alice","bob"]}`
	one := alice.Expect(200, "POST", "/chat-sessions", body, key).Header.Get("Location")
	two := bob.Expect(200, "POST", "/chat-sessions", body, key).Header.Get("Location")
	if one == two {
		t.Fatalf("two callers share the session %s", one)
	}
	patch(alice, one, `{"start":true}`, key)
	patch(alice, two, `{"start":true}`, key)
	patch(bob, one, `{"accept":true}`, key)
	has(t, bob.Get(one), members{"version": 3, "startedBy": "alice", "acceptedBy": "bob"})
	has(t, bob.Get(two), members{"version": 2, "startedBy": "alice"})
	// The role does not make another caller: the account is the same.
	firstAnswer(t, "the same account as a service",
		s.As("service-alice").Expect(200, "POST", "/chat-sessions", body, key), alice.Expect(200, "POST", "/chat-sessions", body, key))
}

// TestOnlyWritesAreRemembered: what was refused, or changed nothing, is judged
// afresh.
func TestOnlyWritesAreRemembered(t *testing.T) {
	s := rig.Start(t, "--dev")
	alice := s.As("account-alice")
	const key = "Idempotency-Key: k"
	refused(alice, 422, "POST", "/chat-sessions", `{"room":""}`, key)
	path := alice.Expect(200, "POST", "/chat-sessions", `{"room":"r"}`, key).Header.Get("Location")
	refused(alice, 409, "PATCH", path, `{"accept":true}`, key)
	refused(alice, 404, "PATCH", rig.NoSession, `{"accept":true}`, key)
	patch(alice, path, `{"room":"r"}`, key) // changes nothing
	patch(alice, path, `{"room":"other"}`)
	refused(alice, 412, "PATCH", path, `{"room":"x"}`, key, `If-Match: "1"`)
	has(t, patch(alice, path, `{"room":"r"}`, key), members{"room": "r", "version": 3}) // and now it does
	refused(alice, 422, "PATCH", path, `{"accept":true}`, key)                          // the key is taken
	patch(alice, path, `{"start":true}`)
	patch(alice, path, `{"accept":true}`, "Idempotency-Key: k2")
}

// TestRepetitionsInFlightWriteOnce: many at the same time get one answer.
func TestRepetitionsInFlightWriteOnce(t *testing.T) {
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		alice := s.As("account-alice")
		const key, callers = "Idempotency-Key: flight", 16
		atOnce := func(method, path, body string) []rig.Answer {
			answers, wait := make([]rig.Answer, callers), sync.WaitGroup{}
			for i := range callers {
				wait.Go(func() {
					var err error
					if answers[i], err = alice.Do(method, path, body, key); err != nil {
						t.Errorf("%s %s: %v", method, path, err)
					}
				})
			}
			wait.Wait()
			return answers
		}
		created := atOnce("POST", "/chat-sessions", `{"room":"r"}`)
		path := created[0].Header.Get("Location")
		started := atOnce("PATCH", path, `{"start":true,"accept":true}`)
		for i := range callers {
			firstAnswer(t, "POST", created[i], created[0])
			firstAnswer(t, "PATCH", started[i], started[0])
		}
		if created[0].Status != 200 || started[0].Status != 200 {
			t.Errorf("POST: %d %s, PATCH: %d %s", created[0].Status, created[0].Body, started[0].Status, started[0].Body)
		}
		has(t, alice.Get(path), members{"version": 3})
		if n := len(alice.Expect(200, "GET", "/chat-sessions", "").List(t)); n != 1 {
			t.Errorf("%d sessions, want 1", n)
		}
	})
}

// TestARepetitionAfterACrashGetsTheFirstAnswer.
func TestARepetitionAfterACrashGetsTheFirstAnswer(t *testing.T) {
	s := rig.Start(t, "--dev")
	const key = "Idempotency-Key: crash"
	alice := s.As("account-alice")
	created := alice.Expect(200, "POST", "/chat-sessions", `{"room":"r"}`, key)
	path := created.Header.Get("Location")
	started := alice.Expect(200, "PATCH", path, `{"start":true}`, key)
	s.Kill()
	s.Start()
	alice = s.As("account-alice") // the port is another one
	firstAnswer(t, "POST after the crash", alice.Expect(200, "POST", "/chat-sessions", `{"room":"r"}`, key), created)
	firstAnswer(t, "PATCH after the crash", alice.Expect(200, "PATCH", path, `{"start":true}`, key), started)
	has(t, alice.Get(path), members{"version": 2})
}

// TestARepetitionNamesTheSameIgnoredFields: what a session had, or had not, when
// the request was first decided is remembered by the log too.
func TestARepetitionNamesTheSameIgnoredFields(t *testing.T) {
	s := rig.Start(t, "--dev")
	alice := s.As("account-alice")
	for _, body := range []string{
		`{"room":"q","version":99,"state":"x","title":1}`,
		`{"room":"q","version":1,"state":"created","title":1}`,
		`{"start":true,"version":2,"state":"started"}`,
	} {
		path := alice.Create(`{}`)
		first := alice.Expect(200, "PATCH", path, body, "Idempotency-Key: k")
		firstAnswer(t, body, alice.Expect(200, "PATCH", path, body, "Idempotency-Key: k"), first)
		alice.Expect(200, "PATCH", path, `{"room":"later"}`)
		firstAnswer(t, body+", later", alice.Expect(200, "PATCH", path, body, "Idempotency-Key: k"), first)
	}
}
