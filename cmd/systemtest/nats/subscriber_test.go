package nats

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chatsessions/eventstore/natstest"
)

// deployedNATS is the configuration of the servers, as an operator finds it.
const deployedNATS = "../../../deploy/nats"

// model is the subscriber that the deployed files are written for.
const model = "billing"

// subscriberPassword is that of all subscribers.
const subscriberPassword = "subscriber's secret"

// configureSubscribers returns a copy of the deployed configuration, to which
// subscribers were added as its README says.
func configureSubscribers(t *testing.T, names ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(deployedNATS)); err != nil {
		t.Fatal(err)
	}
	list := readDeployed(t, "subscribers.conf")
	for _, name := range names {
		t.Setenv("NATS_PASSWORD_"+name, fmt.Sprintf("%q", subscriberPassword))
		list += "include " + name + ".conf\n"
		writeConfig(t, filepath.Join(dir, name+".conf"), strings.ReplaceAll(readDeployed(t, "subscriber.conf"), model, name))
	}
	writeConfig(t, filepath.Join(dir, "subscribers.conf"), list)
	return dir
}

func writeConfig(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func readDeployed(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(deployedNATS, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// startNATSFor starts a server with these subscribers.
func startNATSFor(t *testing.T, names ...string) *natstest.Server {
	t.Helper()
	return natstest.Start(t, natstest.Config{File: filepath.Join(configureSubscribers(t, names...), "nats-server.conf")})
}

// subscriberURL is where and as whom a subscriber connects.
func subscriberURL(server *natstest.Server, name string) string {
	u := url.URL{Scheme: "nats", Host: server.Addr(), User: url.UserPassword(name, subscriberPassword)}
	return u.String()
}

// connect connects to a server until the test ends.
func connect(t *testing.T, url string, options ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// addConsumer makes a subscriber's consumer, as the operator of the log.
func addConsumer(t *testing.T, operator *nats.Conn, name string) {
	t.Helper()
	var config jetstream.ConsumerConfig
	decoder := json.NewDecoder(strings.NewReader(strings.ReplaceAll(readDeployed(t, "consumer.json"), model, name)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&config); err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(operator)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateConsumer(t.Context(), "CHAT_SESSIONS", config); err != nil {
		t.Fatal(err)
	}
}

// consumerOf is a subscriber's view of its consumer.
func consumerOf(t *testing.T, subscriber *nats.Conn, name string) jetstream.Consumer {
	t.Helper()
	js, err := jetstream.NewWithDomain(subscriber, "CHAT_SESSIONS")
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := js.Consumer(t.Context(), "CHAT_SESSIONS", name)
	if err != nil {
		t.Fatal(err)
	}
	return consumer
}
