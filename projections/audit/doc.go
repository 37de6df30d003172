// Package audit compares the read model with the log.
package audit
