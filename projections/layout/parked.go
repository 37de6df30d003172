package layout

import (
	"encoding/json"
	"fmt"
)

// A Parked is the note of a session that is not shown because an event of it cannot be
// projected. Lists leave it out, and a GET by id asks the log. It is shown again after a
// later event that can be projected, or after projector.Retry.
type Parked struct {
	SessionID string `json:"sessionId"`
	Position  uint64 `json:"position"` // of the event
	Reason    string `json:"reason"`

	text string // as stored
}

// NewParked returns the note for a document that cannot be shown.
func NewParked(d *Document) Parked {
	p := Parked{SessionID: d.ID, Position: d.Position, Reason: d.Reason}
	text, _ := json.Marshal(p) // never fails
	p.text = string(text)
	return p
}

// ParseParked reads a stored note.
func ParseParked(text string) (Parked, error) {
	p := Parked{text: text}
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return Parked{}, fmt.Errorf("parked session: %w", err)
	}
	return p, nil
}

// String returns the note as stored.
func (p Parked) String() string { return p.text }
