// Package auth is who may call the HTTP interface: tokens, what they stand for, and how
// many requests an account may make.
//
// Files in reading order:
//
//   - gate.go: the [Gate], a middleware that finds the caller of a request
//   - tokens.go: API tokens, the tokens file, and tokens for development
//   - ratelimit.go: the rate limit of each account
//
// # Invariants
//
//   - A token is in no log line and no response. The tokens file holds hashes.
//   - A tokens file with a wrong line is rejected whole; the tokens of its last valid
//     version stay valid.
//   - A request that the rate limit refuses does not count against the limit.
//
// The package starts no goroutine. [TokenFile] is replaced atomically; nothing is locked.
package auth
