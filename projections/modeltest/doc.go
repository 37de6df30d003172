// Package modeltest connects tests to Redis and shows what it holds of a read model. Only
// tests import it.
//
//	redis.go  connections, and running a test on every kind of Redis
//	dump.go   a read model as a map, comparable with another
//	hooks.go  code that runs before a command
package modeltest
