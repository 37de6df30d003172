// Package audit compares the live read model with the log, for chatsessions verify and
// chatsessions rebuild.
//
// [Run] gets every session of the log from its caller, which reads the log: verify event by
// event, a rebuild the newest event of each session. It works in three steps.
//
//  1. Each session's document is built from its newest event and compared, byte for byte,
//     with the one in Redis. If they are the same, the document and its index entries go
//     into the tally of what is expected. At the same time every document and index entry
//     in Redis goes into the tally of what was found. A tally has a fixed size: one sum of
//     hashes for each of 262,144 groups of sessions.
//  2. Where the two tallies differ, the keys are scanned once more. Documents in those
//     groups are suspects, and so are index entries that their documents do not have.
//     Without a difference this step is skipped.
//  3. A suspect is judged as of one moment: one transaction reads the checkpoint and what
//     Redis holds of the session, once the read model has reached the session's newest
//     event. Only this step reports differences.
//
// In reading order:
//
//	audit.go    Run and its options; the generation to compare, waiting for it, reporting
//	compare.go  step 1: sessions of the log and their documents
//	tally.go    sums of documents and index entries
//	scan.go     steps 1 and 2: the keys of the read model
//	judge.go    step 3: suspects
//
// # Invariants
//
//   - Only a judged suspect is a difference. The first two steps may suspect too much.
//   - A difference that lasts for the whole audit is found: whatever Redis lacks, holds too
//     much, or holds in another form makes a document differ or the tallies differ. The
//     chance that the sums of two different groups are equal is 2^-64.
//   - Nothing is reported of a session whose newest event the read model has not reached. A
//     read model that does not reach it in time is one difference.
//   - The result is an error if the generation that was compared is not live in the end, or
//     if anything could not be read.
//   - Memory does not depend on the number of sessions.
//   - Nothing is written.
//   - Redis gets only commands that the users of deploy/redis/users.acl may send.
//
// # Goroutines
//
// Run starts three (the caller's reading, comparing, counting) and returns when all have
// ended. Comparing owns the expected tally, the suspects, and the result; counting owns the
// found tally. After that Run works alone. There are no locks. Options.Difference and
// Options.Parked are called by one goroutine at a time, beside the caller's reading.
package audit
