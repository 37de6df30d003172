// Package embeddedredis runs a Redis inside the process, for a service without an external
// one. It is empty after every start, and the projector fills it from the log.
//
// Server.Close ends the server, the client, and the goroutine that expires keys. There are
// no locks.
package embeddedredis
