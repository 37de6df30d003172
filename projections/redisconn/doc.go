// Package redisconn connects to Redis: to one server, to a Redis Cluster, or to a master
// that sentinels watch. Connect checks at once what a retry cannot fix (credentials,
// certificates, the mode of the server) and leaves the rest to the callers' retries.
//
// Files, in reading order:
//
//	connect.go       Options, Connect; what counts as a refusal
//	url.go           the URL and its parameters
//	clustermoves.go  notices when a slot moves to another node
//
// # Invariants
//
//   - Options.OnConnect is called before the first command on a connection that may lead to a
//     server with older data. Freshness in readmodel rests on it.
//   - All reads go to masters.
//   - No error contains a password.
//
// The package starts no goroutine that outlives a call; the client's own end with its Close.
// One lock guards the owners of slots; nothing is called under it.
package redisconn
