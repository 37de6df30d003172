package domain

import "github.com/looplab/fsm"

// Diagram draws the state machine as a Mermaid state diagram.
func Diagram() string {
	drawing, err := fsm.VisualizeWithType(fsm.NewFSM(string(StateCreated), transitionTable(), nil), fsm.MermaidStateDiagram)
	if err != nil {
		panic(err) // only an unknown drawing type is an error
	}
	return drawing
}
