package chaos

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/anishathalye/porcupine"
)

// A change is what a write asks for. The model decides on it alone; it shares no
// code with the service.
type change struct {
	directives   []string // in the order of the machine
	rejectReason string   // with the directive reject
	room         string   // "" for none; always another than before
	reason       string   // a correction of the finish reason, "" for none
}

// A result is what an operation has in the model beside what it asks for.
type result struct {
	status  int
	view    *view
	version uint64
	state   string
}

// sessionModel says what may be answered by a service that does one thing at a time.
// The state is the session, nil while there is none.
var sessionModel = porcupine.Model{
	Init: func() any { return (*view)(nil) },
	Step: func(state, input, output any) (bool, any) {
		before, o, r := state.(*view), input.(*operation), output.(result)
		after, legal := o.step(before, r)
		return legal, after
	},
	DescribeOperation: func(input, output any) string {
		return fmt.Sprint(input.(*operation).body, output.(result))
	},
}

func (o *operation) step(before *view, r result) (after *view, legal bool) {
	switch o.method {
	case "POST":
		return r.view, before == nil && r.status == http.StatusOK && o.isCreated(r.view)
	case "PATCH":
		return o.stepChange(before, r)
	case "GET":
		switch r.status {
		case http.StatusOK:
			return before, before != nil && r.view == before && before.Version != o.not
		case http.StatusNotModified:
			return before, before != nil && before.Version == o.not && r.version == o.not
		case http.StatusNotFound:
			return before, before == nil
		}
	case "LIST":
		if r.status == http.StatusOK && r.view != nil {
			return before, r.view == before && (o.in == "" || o.in == before.State)
		}
		return before, r.status == http.StatusOK && (before == nil || o.in != "" && o.in != before.State)
	}
	return before, false
}

func (o *operation) stepChange(before *view, r result) (after *view, legal bool) {
	if before == nil {
		return before, r.status == http.StatusNotFound
	}
	if o.ifMatch != 0 && o.ifMatch != before.Version {
		// What is wrong with the reason is said before.
		if o.change.reason != "" && before.State != "finished" {
			return before, r.status == http.StatusUnprocessableEntity
		}
		return before, r.status == http.StatusPreconditionFailed && r.version == before.Version
	}
	_, possible := endOf(before.State, o.change.directives)
	switch r.status {
	case http.StatusOK:
		if o.events() == 0 {
			return before, r.view == before
		}
		return r.view, possible && o.follows(before, r.view)
	case http.StatusConflict:
		return before, !possible && r.state == before.State
	case http.StatusUnprocessableEntity:
		return before, o.change.reason != "" && before.State != "finished"
	}
	return before, false
}

// isCreated says whether the view is what the POST makes.
func (o *operation) isCreated(v *view) bool {
	nothing := view{
		ID: v.ID, CreatedAt: v.CreatedAt, CreatedBy: o.client, Participants: v.Participants,
		State: "created", UpdatedAt: v.UpdatedAt,
	}
	return o.follows(&nothing, v)
}

// events is how many events the operation leads to when it is carried out.
func (o *operation) events() int {
	n := len(o.change.directives)
	if o.method == "POST" {
		return n + 1
	}
	if o.change.room != "" {
		n++
	}
	if o.change.reason != "" {
		n++
	}
	return n
}

// follows says whether the operation leads from one view to the other.
func (o *operation) follows(before, after *view) bool {
	want := *before
	want.Version += uint64(o.events())
	want.State, _ = endOf(before.State, o.change.directives)
	if o.change.room != "" {
		want.Room = o.change.room
	}
	if o.change.reason != "" {
		want.FinishReason = o.change.reason
	}
	// When it was is for the service's clock to say, as long as the order is right.
	latest := max(before.CreatedAt, before.StartedAt, before.AcceptedAt, before.RejectedAt)
	for _, d := range o.change.directives {
		var at int64
		switch d {
		case "start":
			want.StartedBy, want.StartedAt, at = o.client, after.StartedAt, after.StartedAt
		case "accept":
			want.AcceptedBy, want.AcceptedAt, at = o.client, after.AcceptedAt, after.AcceptedAt
		case "reject":
			want.RejectedBy, want.RejectedAt, at = o.client, after.RejectedAt, after.RejectedAt
			want.RejectReason = o.change.rejectReason
		case "finish":
			want.FinishedBy, want.FinishedAt, at = o.client, after.FinishedAt, after.FinishedAt
		}
		if at < latest {
			return false
		}
		latest = at
	}
	if after.UpdatedAt < before.UpdatedAt {
		return false
	}
	want.UpdatedAt = after.UpdatedAt
	return want.equal(after)
}

// equal compares everything but the bytes.
func (v *view) equal(other *view) bool {
	a, b := *v, *other
	same := slices.Equal(a.Participants, b.Participants)
	a.Participants, b.Participants, a.json, b.json = nil, nil, "", ""
	return same && fmt.Sprint(a) == fmt.Sprint(b)
}

// endOf returns the state after the directives, and false if one of them is illegal.
func endOf(state string, directives []string) (string, bool) {
	for _, d := range directives {
		to, legal := leads[state][d]
		if !legal {
			return state, false
		}
		state = to
	}
	return state, true
}

// leads is the state machine: the next state, by state and directive.
var leads = map[string]map[string]string{
	"created":  {"start": "started"},
	"started":  {"accept": "accepted", "reject": "rejected"},
	"accepted": {"finish": "finished"},
	"rejected": {"finish": "finished"},
}
