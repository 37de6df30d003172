package consistency

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"chatsessions/cmd/systemtest/rig"
)

func TestOfFiftyConcurrentAcceptsOneWinsAndTheOthersLearnWho(t *testing.T) {
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		path := s.As("account-alice").Create(`{"participants": ["p0","p1","p2","p3","p4","p5","p6","p7","p8","p9"]}`)
		s.As("account-alice").Expect(200, "PATCH", path, `{"start": true}`)

		answers := make([]rig.Answer, 50)
		rig.AtOnce(t, len(answers), func(i int) (err error) {
			answers[i], err = s.As(fmt.Sprintf("account-p%d", i%10)).Do("PATCH", path, `{"accept": true}`)
			return err
		})

		after := s.As("account-alice").Expect(200, "GET", path, "").Object(t)
		if after["version"] != 3.0 || after["state"] != "accepted" {
			t.Errorf("the session is %v; one accept makes it version 3", after)
		}
		winners := 0
		for i, a := range answers {
			switch a.Status {
			case 200:
				winners++
				if by := fmt.Sprintf("p%d", i%10); after["acceptedBy"] != by || a.Object(t)["acceptedBy"] != by {
					t.Errorf("%s was answered %s, and the session is %v", by, a.Body, after)
				}
			case 409:
				var refusal struct {
					State    string
					Allowed  []string
					Conflict struct {
						Type, By string
						At       float64
					}
				}
				if err := json.Unmarshal(a.Body, &refusal); err != nil {
					t.Fatal(err)
				}
				c := refusal.Conflict
				if c.Type != "chat-session.accepted" || c.By != after["acceptedBy"] || c.At != after["acceptedAt"] ||
					refusal.State != "accepted" || fmt.Sprint(refusal.Allowed) != "[finish]" {
					t.Errorf("a loser was told %s; the session is %v", a.Body, after)
				}
			default:
				t.Errorf("%d %s", a.Status, a.Body)
			}
		}
		if winners != 1 {
			t.Errorf("%d accepts were answered 200", winners)
		}
	})
}

func TestFiveHundredWritersReadTheirOwnWrites(t *testing.T) {
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		writeAndReadBack(t, 500, []*rig.Service{s})
	})
}

func TestFiveHundredWritersReadTheirOwnWritesOnAnotherNode(t *testing.T) {
	onSeveralNodes(t, func(t *testing.T, nodes []*rig.Service) {
		writeAndReadBack(t, 500, nodes)
	})
}

// writeAndReadBack has so many writers create a session each, read it back at
// once, change it and read it again, each time on another node than the write. A
// 503 is no answer, and who asks again gets one; it must show the write, to the byte.
func writeAndReadBack(t *testing.T, writers int, nodes []*rig.Service) {
	t.Helper()
	var tally rig.Tally
	rig.AtOnce(t, writers, func(i int) error {
		node := func(step int) *rig.Service { return nodes[(i+step)%len(nodes)] }
		account := fmt.Sprintf("account-team-%d", i%20)
		room := fmt.Sprintf("room %d", i)
		written, err := tally.Send(node(0).As(account), "POST", "/chat-sessions", fmt.Sprintf(`{"room": %q}`, room))
		if err != nil || written.Status != 200 {
			return err
		}
		path, byRoom := written.Header.Get("Location"), "room="+url.QueryEscape(room)
		lists := []string{byRoom, "$limit=1000"}
		for step := range 2 {
			if step > 0 {
				if written, err = tally.Send(node(step).As(account), "PATCH", path, `{"start": true}`); err != nil || written.Status != 200 {
					return err
				}
				lists = []string{byRoom + "&state=started"}
			}
			reader := node(step + 1).As(account)
			got, err := readPatiently(&tally, reader, path)
			if err != nil {
				return err
			}
			if !bytes.Equal(got.Body, written.Body) || got.Header.Get("ETag") != written.Header.Get("ETag") {
				return fmt.Errorf("written was %s, read was %s", written.Body, got.Body)
			}
			if step == 0 && i%20 == 0 { // everything there is: that is much to ask, so not by everybody
				reader = node(step + 1).As("service-desk")
			}
			for _, query := range lists {
				list, err := readPatiently(&tally, reader, "/chat-sessions?"+query)
				if err != nil {
					return err
				}
				if !bytes.Contains(list.Body, written.Body) {
					return fmt.Errorf("the list of %s lacks %s", query, written.Body)
				}
			}
		}
		return nil
	})
	tally.Check(t)
}

func TestAReadAfterARefusalShowsWhatTheRefusalTold(t *testing.T) {
	check := func(t *testing.T, nodes []*rig.Service) {
		// How far a session is in each state; a later one may be read.
		reached := map[string]int{"created": 0, "started": 1, "accepted": 2, "rejected": 2, "finished": 3}
		const sessions = 40
		paths := make([]string, sessions)
		for i := range paths {
			paths[i] = nodes[0].As("account-alice").Create(`{"participants": ["bob"]}`)
		}
		directives := []string{`{"start":true}`, `{"start":true}`, `{"start":true,"accept":true}`, `{"reject":"no"}`, `{"accept":true}`, `{"finish":true}`}
		var refusals atomic.Int64
		rig.AtOnce(t, sessions*len(directives), func(i int) error {
			path := paths[i%sessions]
			a, err := nodes[i%len(nodes)].As("account-bob").Do("PATCH", path, directives[i/sessions])
			if err != nil || a.Status != 409 {
				return err
			}
			refusals.Add(1)
			var conflict struct {
				State    string
				Conflict *struct{ By string }
			}
			if err := json.Unmarshal(a.Body, &conflict); err != nil {
				return err
			}
			for _, node := range nodes {
				got, err := node.As("account-alice").Do("GET", path, "")
				switch {
				case err != nil:
					return err
				case got.Status == 503:
					continue
				case got.Status != 200:
					return fmt.Errorf("%d %s", got.Status, got.Body)
				}
				var shown struct{ State string }
				if err := json.Unmarshal(got.Body, &shown); err != nil {
					return err
				}
				if reached[shown.State] < reached[conflict.State] || reached[shown.State] == reached[conflict.State] && shown.State != conflict.State {
					return fmt.Errorf("a refusal told %s, then a read showed %s", a.Body, got.Body)
				}
			}
			return nil
		})
		if refusals.Load() == 0 {
			t.Error("nothing was refused")
		}
	}
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) { check(t, []*rig.Service{s}) })
	onSeveralNodes(t, check)
}

// readPatiently sends a GET, and repeats it while it is refused: an overloaded machine
// refuses some.
func readPatiently(y *rig.Tally, c *rig.Client, path string) (rig.Answer, error) {
	for deadline := time.Now().Add(rig.Patience); ; {
		a, err := y.Send(c, "GET", path, "")
		if err != nil || a.Status == 200 {
			return a, err
		}
		if time.Now().After(deadline) {
			return a, fmt.Errorf("GET %s is refused for %s: %s", path, rig.Patience, a.Body)
		}
		y.Refused.Add(-1)
		<-time.After(100 * time.Millisecond)
	}
}
