package domain

import "iter"

// FilterFields lists the fields by which a list can be filtered; see Filterable.
func FilterFields() []string {
	return []string{"state", "type", "room", "participants", "createdBy", "startedBy", "acceptedBy", "rejectedBy", "finishedBy"}
}

// Filterable returns the session's filter fields with their values: participants
// once for each, absent fields not at all.
func (s *Session) Filterable() iter.Seq2[string, string] {
	return func(yield func(field, value string) bool) {
		present := func(field, value string) bool { return value == "" || yield(field, value) }
		if !present("state", string(s.State)) || !present("type", s.Type) || !present("room", s.Room) {
			return
		}
		for _, uid := range s.Participants {
			if !yield("participants", uid) {
				return
			}
		}
		if !present("createdBy", s.CreatedBy) {
			return
		}
		for t, stamp := range s.Stamps {
			if stamp != nil && !present(Transition(t).ByField(), stamp.By) {
				return
			}
		}
	}
}

// FilterValues returns the session's values of a filter field; none where the
// field is absent.
func (s *Session) FilterValues(field string) []string {
	var values []string
	for f, value := range s.Filterable() {
		if f == field {
			values = append(values, value)
		}
	}
	return values
}

// Readers lists the accounts that may see the session: its creator and its
// participants, each once.
func (s *Session) Readers() []string {
	readers := []string{s.CreatedBy}
	for _, uid := range s.Participants {
		if uid != s.CreatedBy {
			readers = append(readers, uid)
		}
	}
	return readers
}
