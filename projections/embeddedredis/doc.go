// Package embeddedredis runs a Redis inside the process, for a service without an external
// one.
package embeddedredis
