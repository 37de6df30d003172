// Package replay reads events from the log through a filter and gives them to an output:
// a writer for people or programs, a file, or another NATS subject. The commands replay
// and history use it.
//
// Files, in reading order:
//
//   - read.go: Replay reads the log, or single sessions, and gives an Output what the
//     filter keeps
//   - filter.go: Filter, and how its values are written on the command line
//   - output.go: Printer, the Output that prints; the formats json and ndjson
//   - table.go, csv.go: the other formats
//   - file.go: a file that appears when it is complete
//   - publish.go: Publishing, the Output that publishes
//   - defects.go: reports messages that cannot be read
//
// # Invariants
//
//   - Events come in the order of the log, up to its end at the start, and each comes once.
//   - A message that cannot be read is never left out in silence: every format shows it,
//     Defects reports it, and the exit status is 1.
//   - An error says from which position to continue. What comes at or before that position
//     was printed, or confirmed by the server.
//   - Printed text cannot drive a terminal or be a spreadsheet's formula. JSON is exact.
//   - A file has its name only when it is complete and on disk.
//
// The package starts no goroutines and takes no locks.
package replay
