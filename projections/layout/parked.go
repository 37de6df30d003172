package layout

import (
	"encoding/json"
	"fmt"
)

// A Parked is a session that is not shown, because an event of it cannot be
// projected. It is in no list, and a GET by id asks the log. A later event that can be
// projected brings it back, and so does a retry.
type Parked struct {
	SessionID string `json:"sessionId"`
	Position  uint64 `json:"position"` // of the event
	Reason    string `json:"reason"`

	text string // as it lies in Redis
}

// newParked notes that a document cannot be shown.
func NewParked(d *Document) Parked {
	p := Parked{SessionID: d.ID, Position: d.Position, Reason: d.Reason}
	text, _ := json.Marshal(p) // never fails
	p.text = string(text)
	return p
}

// parseParked reads what lies in Redis.
func ParseParked(text string) (Parked, error) {
	p := Parked{text: text}
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return Parked{}, fmt.Errorf("parked session: %w", err)
	}
	return p, nil
}

// String returns the text that lies in Redis.
func (p Parked) String() string { return p.text }
