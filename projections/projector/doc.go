// Package projector follows the log and writes the read model.
package projector
