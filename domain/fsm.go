package domain

import (
	"context"

	"github.com/looplab/fsm"
)

// A State is a session's place in its life.
type State string

// The states of a session. A session that does not exist has StateNone.
const (
	StateNone     State = ""
	StateCreated  State = "created"
	StateStarted  State = "started"
	StateAccepted State = "accepted"
	StateRejected State = "rejected"
	StateFinished State = "finished"
)

// A Transition is a step in a session's life, named by the directive that asks for it.
// Their order is the order in which the state machine can make them.
type Transition int

// The transitions, in the order of the state machine.
const (
	Start Transition = iota
	Accept
	Reject
	Finish
	transitionCount
)

// Transitions lists all transitions in the order of the state machine.
func Transitions() []Transition { return []Transition{Start, Accept, Reject, Finish} }

// transitionNames are the names of each transition and its stamp for clients and events.
var transitionNames = [transitionCount]struct {
	directive, at, by, reason string
	event                     EventType
}{
	Start:  {"start", "startedAt", "startedBy", "", EventStarted},
	Accept: {"accept", "acceptedAt", "acceptedBy", "", EventAccepted},
	Reject: {"reject", "rejectedAt", "rejectedBy", "rejectReason", EventRejected},
	Finish: {"finish", "finishedAt", "finishedBy", "finishReason", EventFinished},
}

// String returns the directive that asks for the transition: "start", "accept", …
func (t Transition) String() string { return transitionNames[t].directive }

// AtField names the member that holds the time of the transition.
func (t Transition) AtField() string { return transitionNames[t].at }

// ByField names the member that holds the account that made the transition.
func (t Transition) ByField() string { return transitionNames[t].by }

// ReasonField names the member that holds the reason; "" for a transition without reasons.
func (t Transition) ReasonField() string { return transitionNames[t].reason }

// transitionTable returns the whole life of a session.
func transitionTable() fsm.Events {
	return fsm.Events{
		{Name: Start.String(), Src: []string{string(StateCreated)}, Dst: string(StateStarted)},
		{Name: Accept.String(), Src: []string{string(StateStarted)}, Dst: string(StateAccepted)},
		{Name: Reject.String(), Src: []string{string(StateStarted)}, Dst: string(StateRejected)},
		{Name: Finish.String(), Src: []string{string(StateAccepted), string(StateRejected)}, Dst: string(StateFinished)},
	}
}

// next holds the state that each transition leads to from each state; StateNone if illegal. It
// is tabulated once: NewFSM builds maps on every call, and an FSM must not be shared.
var next = tabulate()

func tabulate() map[State][transitionCount]State {
	table := map[State][transitionCount]State{}
	for _, from := range []State{StateCreated, StateStarted, StateAccepted, StateRejected, StateFinished} {
		var row [transitionCount]State
		for t := range transitionCount {
			machine := fsm.NewFSM(string(from), transitionTable(), nil)
			if machine.Event(context.Background(), t.String()) == nil {
				row[t] = State(machine.Current())
			}
		}
		table[from] = row
	}
	return table
}

// Allowed lists the transitions that are legal in the state.
func (s State) Allowed() []Transition {
	allowed := []Transition{}
	for t, to := range next[s] {
		if to != StateNone {
			allowed = append(allowed, Transition(t))
		}
	}
	return allowed
}

// Entered returns the transition into the session's state; false if it was only created.
func (s *Session) Entered() (Transition, bool) {
	for t := Finish; t >= Start; t-- {
		if s.Stamps[t] != nil {
			return t, true
		}
	}
	return 0, false
}

// EventType returns the type of the event that records the transition.
func (t Transition) EventType() EventType { return transitionNames[t].event }

// after returns the state to which the transition leads, and whether it is legal.
func (s State) after(t Transition) (State, bool) {
	to := next[s][t]
	return to, to != StateNone
}
