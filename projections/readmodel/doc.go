// Package readmodel answers reads from what the projector wrote to Redis. It gives an answer
// only if it can prove that every write that any node has answered is in it; otherwise it
// returns domain.ErrUnavailable.
//
// The proof is in the comment on projections.Bound: write handlers call WaitFor, and a read
// holds a ticket, which demands the end of the log as of a probe less than Bound old.
//
// Files, in reading order:
//
//	readmodel.go     ReadModel: Get, WaitFor, AwaitEverywhere, Status; when an answer is trusted
//	freshness.go     probes, tickets, and what they demand
//	waiters.go       requests that wait for a position
//	tracker.go       Run: probes the log, listens for notices, polls while requests wait
//	otherlayouts.go  nodes with another layout beside this one (layouts.lua)
//	trips.go         GETs share round trips
//	list.go          List: pages and totals
//	plan.go          a query as tests on indexes
//	walk.go          walks the indexes of one partition (list.lua)
//	pace.go          lists yield to writes
//	shared.go        concurrent requests for one list share a read
//	queries.go       saved queries of long cursors (savequery.lua)
//
// # Invariants
//
//   - The checkpoint is read in the same command or script as the data that it vouches for.
//   - A ticket is drawn before the read is sent, and nothing weakens it later.
//   - After a new connection, no answer is given before the log was probed again.
//   - Nothing is shown before it is durable.
//   - An index hit is checked against the document before it is shown.
//
// # Goroutines
//
// Run owns three (probing, listening, polling), which end with its context. Each trip loop in
// trips.go ends when no request waits; a trip takes half a second at most. Requests run in
// their callers' goroutines.
//
// # Locks
//
// freshness, otherLayouts, sharedLists, and trips have one mutex each. No code holds two.
package readmodel
