// Command bench measures the service over real HTTP beside raw baselines, alternating in one
// run on one machine. It reports ratios, because absolute figures say more about the machine
// than about the service. With --against it compares two binaries of the service instead.
// docs/benchmarks.md has the figures.
//
// The files, in reading order:
//
//   - main.go: flags, the list of measurements, cleanup
//   - table.go: figures of the rounds, rows, ratios
//   - service.go: a service process under test, and commands on its log
//   - process.go, servers.go: other processes and their memory; Redis and three NATS servers
//   - metrics.go: the service's own metrics and profiles
//   - load.go: the load generator
//   - raw.go, baseline.go: the baselines of writes and of reads
//   - writes.go: PATCHes beside raw publishes, without syncs, in a cluster, on many sessions
//   - start.go: starts with a large embedded log
//   - reads.go: GETs and lists; the lag of the read model
//   - feed.go: readers of the feed
//   - seed.go, large.go: a log of many sessions, and a service over it
//   - lists.go, audit.go: lists, rebuild, and auditors' commands on that log
//   - compare.go: two binaries
//
// # Invariants
//
//   - Whatever is compared alternates within one run, and a ratio is the median of the
//     rounds' ratios.
//   - The service and the baselines of reads are processes of their own. Only the raw
//     loop of publishes runs in this process.
//   - A refused request fails the measurement, unless refusals are what it counts.
//   - Every process ends with the measurement that started it; the service over the large
//     log, and its Redis, with the run.
//
// # Goroutines
//
// Every load and follower of a process is waited for by the function that starts it. Mutexes
// guard the results of one load; no two are held at once.
package main
