package consistency

import (
	"chatsessions/cmd/systemtest/rig"
	"chatsessions/eventstore/natstest"
	"fmt"
	"strings"
	"testing"
)

// onSeveralNodes runs a test on nodes that share one NATS: two complete nodes on one Redis, a
// projector with two API nodes, and two nodes with an embedded Redis each.
func onSeveralNodes(t *testing.T, test func(t *testing.T, nodes []*rig.Service)) {
	t.Run("two complete nodes", func(t *testing.T) {
		urls := rig.StartServers(t).Flags()
		test(t, []*rig.Service{rig.Start(t, urls...), rig.Start(t, urls...)})
	})
	t.Run("a projector and two API nodes", func(t *testing.T) {
		urls := rig.StartServers(t).Flags()
		rig.Start(t, append(urls, "--only", "projector")...)
		api := append(urls, "--only", "api")
		test(t, []*rig.Service{rig.Start(t, api...), rig.Start(t, api...)})
	})
	t.Run("two nodes with a Redis each", func(t *testing.T) {
		nats := natstest.Start(t, natstest.Config{})
		test(t, []*rig.Service{rig.Start(t, "--dev", "--nats-url", nats.URL()), rig.Start(t, "--dev", "--nats-url", nats.URL())})
	})
}

// TestAHistoryShowsEveryAnsweredWriteOnAnyNode, and no node shows less afterwards.
func TestAHistoryShowsEveryAnsweredWriteOnAnyNode(t *testing.T) {
	onSeveralNodes(t, func(t *testing.T, nodes []*rig.Service) {
		rig.AtOnce(t, 40, func(i int) error {
			writer, reader := nodes[i%2].As("service-crm"), nodes[(i+1)%2].As("auditor-eve")
			written, err := writer.Do("POST", "/chat-sessions", `{"room": "r"}`)
			path := written.Header.Get("Location")
			for version := 1; version <= 5; version++ {
				if err != nil || written.Status != 200 {
					return written.Instead(err)
				}
				history, err := reader.Do("GET", path+"/events", "")
				if err != nil || history.Status != 200 || strings.Count(string(history.Body), `"session":{`) != version {
					return history.Instead(err)
				}
				if now, err := writer.Do("GET", path, ""); err != nil || now.Status != 200 || string(now.Body) != string(written.Body) {
					return now.Instead(err)
				}
				written, err = writer.Do("PATCH", path, fmt.Sprintf(`{"room": "r%d"}`, version))
				if err != nil {
					return err
				}
			}
			return nil
		})
	})
}
