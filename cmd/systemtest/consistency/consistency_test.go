package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"sync/atomic"
	"testing"
)

func TestOfFiftyConcurrentAcceptsOneWinsAndTheOthersLearnWho(t *testing.T) {
	onAllSetups(t, func(t *testing.T, s *service) {
		path := s.as("account-alice").create(`{"participants": ["p0","p1","p2","p3","p4","p5","p6","p7","p8","p9"]}`)
		s.as("account-alice").expect(200, "PATCH", path, `{"start": true}`)

		answers := make([]answer, 50)
		atOnce(t, len(answers), func(i int) (err error) {
			answers[i], err = s.as(fmt.Sprintf("account-p%d", i%10)).do("PATCH", path, `{"accept": true}`)
			return err
		})

		after := s.as("account-alice").expect(200, "GET", path, "").object(t)
		if after["version"] != 3.0 || after["state"] != "accepted" {
			t.Errorf("the session is %v; one accept makes it version 3", after)
		}
		winners := 0
		for i, a := range answers {
			switch a.status {
			case 200:
				winners++
				if by := fmt.Sprintf("p%d", i%10); after["acceptedBy"] != by || a.object(t)["acceptedBy"] != by {
					t.Errorf("%s was answered %s, and the session is %v", by, a.body, after)
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
				if err := json.Unmarshal(a.body, &refusal); err != nil {
					t.Fatal(err)
				}
				c := refusal.Conflict
				if c.Type != "chat-session.accepted" || c.By != after["acceptedBy"] || c.At != after["acceptedAt"] ||
					refusal.State != "accepted" || fmt.Sprint(refusal.Allowed) != "[finish]" {
					t.Errorf("a loser was told %s; the session is %v", a.body, after)
				}
			default:
				t.Errorf("%d %s", a.status, a.body)
			}
		}
		if winners != 1 {
			t.Errorf("%d accepts were answered 200", winners)
		}
	})
}

func TestFiveHundredWritersReadTheirOwnWrites(t *testing.T) {
	onAllSetups(t, func(t *testing.T, s *service) {
		writeAndReadBack(t, 500, []*service{s})
	})
}

func TestFiveHundredWritersReadTheirOwnWritesOnAnotherNode(t *testing.T) {
	onSeveralNodes(t, func(t *testing.T, nodes []*service) {
		writeAndReadBack(t, 500, nodes)
	})
}

// writeAndReadBack has so many writers create a session each, read it back at
// once, change it and read it again, each time on another node than the write. A
// 503 is no answer, and who asks again gets one; it must show the write, to the byte.
func writeAndReadBack(t *testing.T, writers int, nodes []*service) {
	t.Helper()
	var tally tally
	atOnce(t, writers, func(i int) error {
		node := func(step int) *service { return nodes[(i+step)%len(nodes)] }
		account := fmt.Sprintf("account-team-%d", i%20)
		room := fmt.Sprintf("room %d", i)
		written, err := tally.send(node(0).as(account), "POST", "/chat-sessions", fmt.Sprintf(`{"room": %q}`, room))
		if err != nil || written.status != 200 {
			return err
		}
		path, byRoom := written.header.Get("Location"), "room="+url.QueryEscape(room)
		lists := []string{byRoom, "$limit=1000"}
		for step := range 2 {
			if step > 0 {
				if written, err = tally.send(node(step).as(account), "PATCH", path, `{"start": true}`); err != nil || written.status != 200 {
					return err
				}
				lists = []string{byRoom + "&state=started"}
			}
			reader := node(step + 1).as(account)
			got, err := tally.read(reader, path)
			if err != nil {
				return err
			}
			if !bytes.Equal(got.body, written.body) || got.header.Get("ETag") != written.header.Get("ETag") {
				return fmt.Errorf("written was %s, read was %s", written.body, got.body)
			}
			if step == 0 && i%20 == 0 { // everything there is: that is much to ask, so not by everybody
				reader = node(step + 1).as("service-desk")
			}
			for _, query := range lists {
				list, err := tally.read(reader, "/chat-sessions?"+query)
				if err != nil {
					return err
				}
				if !bytes.Contains(list.body, written.body) {
					return fmt.Errorf("the list of %s lacks %s", query, written.body)
				}
			}
		}
		return nil
	})
	tally.check(t)
}

func TestAReadAfterARefusalShowsWhatTheRefusalTold(t *testing.T) {
	check := func(t *testing.T, nodes []*service) {
		// How far a session is in each state; a later one may be read.
		reached := map[string]int{"created": 0, "started": 1, "accepted": 2, "rejected": 2, "finished": 3}
		const sessions = 40
		paths := make([]string, sessions)
		for i := range paths {
			paths[i] = nodes[0].as("account-alice").create(`{"participants": ["bob"]}`)
		}
		directives := []string{`{"start":true}`, `{"start":true}`, `{"start":true,"accept":true}`, `{"reject":"no"}`, `{"accept":true}`, `{"finish":true}`}
		var refusals atomic.Int64
		atOnce(t, sessions*len(directives), func(i int) error {
			path := paths[i%sessions]
			a, err := nodes[i%len(nodes)].as("account-bob").do("PATCH", path, directives[i/sessions])
			if err != nil || a.status != 409 {
				return err
			}
			refusals.Add(1)
			var told struct {
				State    string
				Conflict *struct{ By string }
			}
			if err := json.Unmarshal(a.body, &told); err != nil {
				return err
			}
			for _, node := range nodes {
				got, err := node.as("account-alice").do("GET", path, "")
				switch {
				case err != nil:
					return err
				case got.status == 503:
					continue
				case got.status != 200:
					return fmt.Errorf("%d %s", got.status, got.body)
				}
				var shown struct{ State string }
				if err := json.Unmarshal(got.body, &shown); err != nil {
					return err
				}
				if reached[shown.State] < reached[told.State] || reached[shown.State] == reached[told.State] && shown.State != told.State {
					return fmt.Errorf("a refusal told %s, then a read showed %s", a.body, got.body)
				}
			}
			return nil
		})
		if refusals.Load() == 0 {
			t.Error("nothing was refused")
		}
	}
	onAllSetups(t, func(t *testing.T, s *service) { check(t, []*service{s}) })
	onSeveralNodes(t, check)
}
