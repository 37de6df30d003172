// Writes every event of the log to a file, in order and once, however often it is stopped:
// NATS_URL=nats://billing:password@host:4222 go run ./docs/examples/go billing events.ndjson
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"github.com/cloudevents/sdk-go/v2/binding/spec"
	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func main() {
	// What an event does and how far we are is written in one step: line n is event n.
	file := must(os.OpenFile(os.Args[2], os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600))
	lines := must(os.ReadFile(file.Name()))
	done := uint64(bytes.Count(lines, []byte("\n")))
	must(file, file.Truncate(int64(bytes.LastIndex(lines, []byte("\n"))+1))) // half a line is none
	js := must(jetstream.NewWithDomain(must(nats.Connect(os.Getenv("NATS_URL"), nats.MaxReconnects(-1))), "CHAT_SESSIONS"))
	consumer := must(js.Consumer(context.Background(), "CHAT_SESSIONS", os.Args[1]))
	consuming := must(consumer.Consume(func(msg jetstream.Msg) {
		if n := must(msg.Metadata()).Sequence.Stream; n > done { // else its acknowledgement was lost
			must(fmt.Fprintf(file, "%s\n", must(json.Marshal(cloudEvent(msg)))))
			must(file, file.Sync())
			done = n
		}
		_ = msg.Ack() // only now the next one comes
	}, jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) { log.Print(err) })))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, consuming.Drain)
	<-consuming.Closed()
	must(js, js.Conn().Flush())
}

func cloudEvent(msg jetstream.Msg) event.Event {
	e := event.Event{Context: &event.EventContextV1{}, DataEncoded: msg.Data()}
	for name, values := range msg.Headers() { // names without the prefix are passed over
		must(e, spec.WithPrefix("ce-").Version("1.0").SetAttribute(e.Context, name, must(url.PathUnescape(values[0]))))
	}
	return e
}

// must ends the process: the event was not acknowledged, so it comes again.
func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
