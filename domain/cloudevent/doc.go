// Package cloudevent writes events of the log as JSON: as CloudEvents 1.0 for feeds,
// exports, and histories, and in the shorter form that a history has by default. It also
// names the schemas of the events.
//
// # Invariants
//
//   - An attribute without a value is absent, because CloudEvents has no empty ones.
//   - Nothing here adds a line break, so a server-sent event can carry the result.
package cloudevent
