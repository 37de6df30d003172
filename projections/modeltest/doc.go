// Package modeltest connects tests to Redis servers and shows what they hold.
package modeltest
