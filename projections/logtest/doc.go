// Package logtest has a log in memory and sessions to put into it, for tests.
package logtest
