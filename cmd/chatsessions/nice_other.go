//go:build !linux

package main

// giveWay does nothing: other systems handle niceness differently.
func giveWay() {}
