package domain

import (
	"encoding/json"
	"slices"
)

// A Session is the aggregate, folded from its events. The zero value has no event yet.
type Session struct {
	ID           string
	CreatedAt    int64 // epoch milliseconds
	CreatedBy    string
	Type         string // "" or TypeTelemed
	Room         string
	Participants []string
	// Stamps holds the stamp of each transition; nil for one that has not happened.
	Stamps    [transitionCount]*Stamp
	State     State
	Version   uint64 // the number of the session's events
	UpdatedAt int64  // when its newest event was recorded, epoch milliseconds
}

// A Stamp is when, by whom, and why a transition happened.
type Stamp struct {
	At     int64 // epoch milliseconds
	By     string
	Reason string // only Reject and Finish have one; "" is no reason
}

func equalStamps(a, b *Stamp) bool { return a == b || a != nil && b != nil && *a == *b }

// TypeTelemed is the only session type there is.
const TypeTelemed = "telemed"

// Exists reports whether the session has been created.
func (s *Session) Exists() bool { return s.Version > 0 }

// clone returns a copy that can be changed without changing the original.
func (s *Session) clone() Session {
	c := *s
	c.Participants = slices.Clone(s.Participants)
	for t, stamp := range s.Stamps {
		if stamp != nil {
			copied := *stamp
			c.Stamps[t] = &copied
		}
	}
	return c
}

// MarshalJSON writes the session as clients see it; see AppendJSON.
func (s Session) MarshalJSON() ([]byte, error) { return s.AppendJSON(nil), nil }

// UnmarshalJSON reads what AppendJSON wrote, however it is formatted. Unknown members are
// ignored, so that a session written by a newer version can be read. It lists the fields of
// the table fields again.
func (s *Session) UnmarshalJSON(data []byte) error {
	var w struct {
		ID           string   `json:"id"`
		CreatedAt    int64    `json:"createdAt"`
		CreatedBy    string   `json:"createdBy"`
		Type         string   `json:"type"`
		Room         string   `json:"room"`
		StartedAt    *int64   `json:"startedAt"`
		StartedBy    string   `json:"startedBy"`
		AcceptedAt   *int64   `json:"acceptedAt"`
		AcceptedBy   string   `json:"acceptedBy"`
		RejectedAt   *int64   `json:"rejectedAt"`
		RejectedBy   string   `json:"rejectedBy"`
		RejectReason string   `json:"rejectReason"`
		FinishedAt   *int64   `json:"finishedAt"`
		FinishedBy   string   `json:"finishedBy"`
		FinishReason string   `json:"finishReason"`
		Participants []string `json:"participants"`
		State        State    `json:"state"`
		Version      uint64   `json:"version"`
		UpdatedAt    int64    `json:"updatedAt"`
	}
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	*s = Session{
		ID: w.ID, CreatedAt: w.CreatedAt, CreatedBy: w.CreatedBy, Type: w.Type, Room: w.Room,
		Participants: w.Participants, State: w.State, Version: w.Version, UpdatedAt: w.UpdatedAt,
	}
	stamp := func(t Transition, at *int64, by, reason string) {
		if at != nil {
			s.Stamps[t] = &Stamp{At: *at, By: by, Reason: reason}
		}
	}
	stamp(Start, w.StartedAt, w.StartedBy, "")
	stamp(Accept, w.AcceptedAt, w.AcceptedBy, "")
	stamp(Reject, w.RejectedAt, w.RejectedBy, w.RejectReason)
	stamp(Finish, w.FinishedAt, w.FinishedBy, w.FinishReason)
	return nil
}
