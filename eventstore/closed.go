package eventstore

import (
	"fmt"

	"github.com/nats-io/nats.go"
)

// Failed returns a channel that is closed when the client library has closed the connection
// for good, and not Close; Err says why. The library restores a connection that is lost, but
// not one on which the server reported certain errors, such as a message above its limit.
// The log cannot be reached any more then. The process has to end, and to be started again:
// the followers and what they have delivered belong to the connection.
func (l *Log) Failed() <-chan struct{} { return l.failed }

// Err returns the reason why the connection was closed for good, or nil.
func (l *Log) Err() error {
	select {
	case <-l.failed:
		return fmt.Errorf("the connection to NATS was closed for good: %w", lastError(l.nc))
	default:
		return nil
	}
}

func lastError(nc *nats.Conn) error {
	if err := nc.LastError(); err != nil {
		return err
	}
	return nats.ErrConnectionClosed
}

// watchForClose closes failed when the connection is closed for good.
func (l *Log) watchForClose() {
	closed := l.nc.StatusChanged(nats.CLOSED)
	l.follows.Go(func() {
		defer l.nc.RemoveStatusListener(closed)
		if !l.nc.IsClosed() { // it may have been before we listened
			select {
			case <-l.ctx.Done():
				return
			case <-closed:
			}
		}
		l.logger.Error("the NATS connection was closed for good", "error", lastError(l.nc))
		close(l.failed)
	})
}
