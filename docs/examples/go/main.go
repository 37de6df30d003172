// Writes every event of the log to a file, in order and once, however often it is stopped.
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
	"time"

	"github.com/cloudevents/sdk-go/v2/binding/spec"
	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func main() {
	// An event's effect and its position are written in one step: line n is event n.
	file := must(os.OpenFile(os.Args[2], os.O_RDWR|os.O_CREATE|os.O_APPEND|os.O_SYNC, 0o600))
	lines := must(os.ReadFile(file.Name()))
	done := uint64(bytes.Count(lines, []byte("\n")))
	must(file, file.Truncate(int64(bytes.LastIndex(lines, []byte("\n"))+1))) // drop a torn line
	nc := must(nats.Connect(os.Getenv("NATS_URL"), nats.MaxReconnects(-1)))
	js := must(jetstream.NewWithDomain(nc, "CHAT_SESSIONS"))
	consumer := must(js.Consumer(context.Background(), "CHAT_SESSIONS", os.Args[1]))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for ctx.Err() == nil {
		batch := must(consumer.Fetch(1, jetstream.FetchMaxWait(time.Second)))
		for msg := range batch.Messages() {
			if n := must(msg.Metadata()).Sequence.Stream; n > done { // else its acknowledgement was lost
				must(fmt.Fprintf(file, "%s\n", must(json.Marshal(cloudEvent(msg)))))
				done = n
			}
			must(msg, msg.DoubleAck(context.Background())) // now the next one may come
		}
		must(batch, batch.Error())
	}
}

func cloudEvent(msg jetstream.Msg) event.Event {
	e := event.Event{Context: &event.EventContextV1{}, DataEncoded: msg.Data()}
	for name, values := range msg.Headers() { // skips names without the prefix
		must(e, spec.WithPrefix("ce-").Version("1.0").SetAttribute(e.Context, name, must(url.PathUnescape(values[0]))))
	}
	return e // without e.Validate(): the first events name their schema by a path
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err) // a supervisor restarts the program
	}
	return v
}
