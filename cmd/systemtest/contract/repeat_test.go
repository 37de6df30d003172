package main

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

// firstAnswer checks that an answer is the first one, again.
func firstAnswer(t *testing.T, what string, again, first answer) {
	t.Helper()
	if again.status != first.status || string(again.body) != string(first.body) {
		t.Errorf("%s: %d %s; the first answer was %d %s", what, again.status, again.body, first.status, first.body)
	}
	for _, name := range []string{"ETag", "Location", "Chat-Sessions-Position", "Ignored-Fields", "Content-Type"} {
		if got, want := again.header.Get(name), first.header.Get(name); got != want {
			t.Errorf("%s: %s is %q; in the first answer it was %q", what, name, got, want)
		}
	}
}

// TestARepeatedRequestGetsItsFirstAnswer, whatever happened to the session since.
func TestARepeatedRequestGetsItsFirstAnswer(t *testing.T) {
	onAllSetups(t, func(t *testing.T, s *service) {
		alice, bob := s.as("account-alice"), s.as("account-bob")
		const key = "Idempotency-Key: k-1"
		post := `{"participants":["bob"],"title":"x","room":"r"}`
		created := alice.expect(200, "POST", "/chat-sessions", post, key)
		path := created.header.Get("Location")
		if id := fmt.Sprint(created.object(t)["id"]); !uuidV8.MatchString(id) {
			t.Errorf("the id %s of a POST with a key is not a UUIDv8", id)
		}
		repeatPost := func(when string) {
			t.Helper()
			firstAnswer(t, "POST again, "+when, alice.expect(200, "POST", "/chat-sessions", post, key), created)
		}
		repeatPost("at once")

		start := `{"start":true,"seen":true}`
		started := bob.expect(200, "PATCH", path, start, key)
		repeatStart := func(when string, headers ...string) {
			t.Helper()
			firstAnswer(t, "PATCH again, "+when, bob.expect(200, "PATCH", path, start, append(headers, key)...), started)
		}
		repeatStart("at once")
		repeatPost("after a PATCH")

		alice.patch(path, `{"accept":true,"finish":"done"}`)
		repeatStart("where it would be illegal now")
		repeatStart("with a stale condition", `If-Match: "1"`)
		alice.patch(path, `{"participants":null}`)
		bob.refused(404, "GET", path, "")
		repeatStart("by who lost sight of the session")
		bob.refused(404, "PATCH", path, start, "Idempotency-Key: k-2")
		repeatPost("after the end")
		has(t, alice.get(path), members{"version": 5, "state": "finished"})
		same(t, "sessions", ids(alice.expect(200, "GET", "/chat-sessions", "").list(t)), []string{idOf(path)})
	})
}

// TestARepetitionSpeaksTheFirstAnswerOfAWriteOfSeveralEvents.
func TestARepetitionSpeaksTheFirstAnswerOfAWriteOfSeveralEvents(t *testing.T) {
	onAllSetups(t, func(t *testing.T, s *service) {
		alice := s.as("account-alice")
		post := fmt.Sprintf(`{"createdAt":%d,"startedAt":%d}`, longAgo, longAgo)
		created := alice.expect(200, "POST", "/chat-sessions", post, "Idempotency-Key: import")
		path := created.header.Get("Location")
		patch := `{"finish":"x","accept":true,"room":"r"}`
		patched := alice.expect(200, "PATCH", path, patch, "Idempotency-Key: all")
		has(t, patched.object(t), members{"version": 5})
		alice.patch(path, `{"room":"later"}`)
		firstAnswer(t, "POST", alice.expect(200, "POST", "/chat-sessions", post, "Idempotency-Key: import"), created)
		firstAnswer(t, "PATCH", alice.expect(200, "PATCH", path, patch, "Idempotency-Key: all"), patched)
		has(t, alice.get(path), members{"version": 6, "room": "later"})
	})
}

// TestAKeyWithAnotherBodyIsRefused: byte for byte the same, or not the same.
func TestAKeyWithAnotherBodyIsRefused(t *testing.T) {
	s := startService(t, "--dev")
	alice := s.as("account-alice")
	const key = "Idempotency-Key: k"
	path := alice.expect(200, "POST", "/chat-sessions", `{"room":"r"}`, key).header.Get("Location")
	alice.expect(200, "PATCH", path, `{"start":true}`, key)
	check := alice.unchanged(path)
	for _, body := range []string{`{"room":"s"}`, `{"room": "r"}`, `{}`, `{"room":5}`} {
		p := alice.refused(422, "POST", "/chat-sessions", body, key)
		if !strings.Contains(fmt.Sprint(p["detail"]), "Idempotency-Key") && body != `{"room":5}` {
			t.Errorf("%s: the key is not named: %v", body, p)
		}
		alice.refused(422, "PATCH", path, body, key)
	}
	check("other bodies")
}

// TestAKeyBelongsToCallerMethodAndPath: the same one elsewhere is another.
func TestAKeyBelongsToCallerMethodAndPath(t *testing.T) {
	s := startService(t, "--dev")
	alice, bob := s.as("account-alice"), s.as("account-bob")
	const key, body = "Idempotency-Key: k", `{"participants":["alice","bob"]}`
	one := alice.expect(200, "POST", "/chat-sessions", body, key).header.Get("Location")
	two := bob.expect(200, "POST", "/chat-sessions", body, key).header.Get("Location")
	if one == two {
		t.Fatalf("two callers share the session %s", one)
	}
	alice.patch(one, `{"start":true}`, key)
	alice.patch(two, `{"start":true}`, key)
	bob.patch(one, `{"accept":true}`, key)
	has(t, bob.get(one), members{"version": 3, "startedBy": "alice", "acceptedBy": "bob"})
	has(t, bob.get(two), members{"version": 2, "startedBy": "alice"})
	// The role does not make another caller: the account is the same.
	firstAnswer(t, "the same account as a service",
		s.as("service-alice").expect(200, "POST", "/chat-sessions", body, key), alice.expect(200, "POST", "/chat-sessions", body, key))
}

// TestOnlyWritesAreRemembered: what was refused, or changed nothing, is judged
// afresh.
func TestOnlyWritesAreRemembered(t *testing.T) {
	s := startService(t, "--dev")
	alice := s.as("account-alice")
	const key = "Idempotency-Key: k"
	alice.refused(422, "POST", "/chat-sessions", `{"room":""}`, key)
	path := alice.expect(200, "POST", "/chat-sessions", `{"room":"r"}`, key).header.Get("Location")
	alice.refused(409, "PATCH", path, `{"accept":true}`, key)
	alice.refused(404, "PATCH", nobody, `{"accept":true}`, key)
	alice.patch(path, `{"room":"r"}`, key) // changes nothing
	alice.patch(path, `{"room":"other"}`)
	alice.refused(412, "PATCH", path, `{"room":"x"}`, key, `If-Match: "1"`)
	has(t, alice.patch(path, `{"room":"r"}`, key), members{"room": "r", "version": 3}) // and now it does
	alice.refused(422, "PATCH", path, `{"accept":true}`, key)                          // the key is taken
	alice.patch(path, `{"start":true}`)
	alice.patch(path, `{"accept":true}`, "Idempotency-Key: k2")
}

// TestAMalformedKeyIsRefused. A key has 1 to 255 printable ASCII characters.
func TestAMalformedKeyIsRefused(t *testing.T) {
	s := startService(t, "--dev")
	alice := s.as("account-alice")
	for _, key := range []string{"", strings.Repeat("k", 256), "é", "a\tb"} {
		alice.refused(400, "POST", "/chat-sessions", "{}", "Idempotency-Key: "+key)
	}
	for _, key := range []string{"k", strings.Repeat("k", 255), `"8e03978e-40d5-43dd-bc93-6894a57f9324"`, "a b", "~!@#$%^&*(){}"} {
		alice.expect(200, "POST", "/chat-sessions", "{}", "Idempotency-Key: "+key)
	}
}

// TestRepetitionsInFlightWriteOnce: many at the same time get one answer.
func TestRepetitionsInFlightWriteOnce(t *testing.T) {
	onAllSetups(t, func(t *testing.T, s *service) {
		alice := s.as("account-alice")
		const key, callers = "Idempotency-Key: flight", 16
		atOnce := func(method, path, body string) []answer {
			answers, wait := make([]answer, callers), sync.WaitGroup{}
			for i := range callers {
				wait.Go(func() {
					var err error
					if answers[i], err = alice.do(method, path, body, key); err != nil {
						t.Errorf("%s %s: %v", method, path, err)
					}
				})
			}
			wait.Wait()
			return answers
		}
		created := atOnce("POST", "/chat-sessions", `{"room":"r"}`)
		path := created[0].header.Get("Location")
		started := atOnce("PATCH", path, `{"start":true,"accept":true}`)
		for i := range callers {
			firstAnswer(t, "POST", created[i], created[0])
			firstAnswer(t, "PATCH", started[i], started[0])
		}
		if created[0].status != 200 || started[0].status != 200 {
			t.Errorf("POST: %d %s, PATCH: %d %s", created[0].status, created[0].body, started[0].status, started[0].body)
		}
		has(t, alice.get(path), members{"version": 3})
		if n := len(alice.expect(200, "GET", "/chat-sessions", "").list(t)); n != 1 {
			t.Errorf("%d sessions, want 1", n)
		}
	})
}

// TestARepetitionAfterACrashGetsTheFirstAnswer.
func TestARepetitionAfterACrashGetsTheFirstAnswer(t *testing.T) {
	s := startService(t, "--dev")
	const key = "Idempotency-Key: crash"
	alice := s.as("account-alice")
	created := alice.expect(200, "POST", "/chat-sessions", `{"room":"r"}`, key)
	path := created.header.Get("Location")
	started := alice.expect(200, "PATCH", path, `{"start":true}`, key)
	s.kill()
	s.start()
	alice = s.as("account-alice") // the port is another one
	firstAnswer(t, "POST after the crash", alice.expect(200, "POST", "/chat-sessions", `{"room":"r"}`, key), created)
	firstAnswer(t, "PATCH after the crash", alice.expect(200, "PATCH", path, `{"start":true}`, key), started)
	has(t, alice.get(path), members{"version": 2})
}

// TestARepetitionNamesTheSameIgnoredFields: what a session had, or had not, when
// the request was first decided is remembered by the log too.
func TestARepetitionNamesTheSameIgnoredFields(t *testing.T) {
	s := startService(t, "--dev")
	alice := s.as("account-alice")
	for _, body := range []string{
		`{"room":"q","version":99,"state":"x","title":1}`,
		`{"room":"q","version":1,"state":"created","title":1}`,
		`{"start":true,"version":2,"state":"started"}`,
	} {
		path := alice.create(`{}`)
		first := alice.expect(200, "PATCH", path, body, "Idempotency-Key: k")
		firstAnswer(t, body, alice.expect(200, "PATCH", path, body, "Idempotency-Key: k"), first)
		alice.expect(200, "PATCH", path, `{"room":"later"}`)
		firstAnswer(t, body+", later", alice.expect(200, "PATCH", path, body, "Idempotency-Key: k"), first)
	}
}
