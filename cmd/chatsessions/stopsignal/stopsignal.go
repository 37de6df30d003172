package stopsignal

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// received gets the first signal, and drops others: one is enough to end.
var received = catch()

func catch() <-chan os.Signal {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	return signals
}

// Context returns a context that ends with the first signal since the process started. It is
// called once.
func Context() context.Context {
	ctx, end := context.WithCancel(context.Background())
	go func() {
		<-received
		end()
	}()
	return ctx
}
