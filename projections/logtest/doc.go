// Package logtest provides a log in memory, sessions to write to it, and small helpers for
// tests of projections. Only tests import it.
//
//	log.go  Log, and what can go wrong with it
//	run.go  runs what has a Run method; waits; collects output
package logtest
