package consistency

import (
	"bytes"
	"fmt"
	"testing"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/eventstore/natstest"
)

// Two nodes of one log, each with a Redis inside that the other does not see: neither
// hears how far the other's is. Few writers, so that a read comes at once behind the
// write, when the other node has not read it from the log yet.
func TestOnNodesWithARedisEachAReadBehindAWriteOnTheOtherShowsIt(t *testing.T) {
	nats := natstest.Start(t, natstest.Config{})
	one, other := rig.Start(t, "--dev", "--nats-url", nats.URL()), rig.Start(t, "--dev", "--nats-url", nats.URL())
	const writers, each = 8, 60
	var tally rig.Tally
	rig.AtOnce(t, writers, func(i int) error {
		account := fmt.Sprintf("account-writer-%d", i)
		writer, reader := one.As(account), other.As(account)
		for n := range each {
			written, err := tally.Send(writer, "POST", "/chat-sessions", `{}`)
			if err != nil || written.Status != 200 {
				return err
			}
			path := written.Header.Get("Location")
			// What is asked first is asked at the worst time.
			byID := func() error {
				got, err := tally.Send(reader, "GET", path, "")
				if err == nil && got.Status == 200 && !bytes.Equal(got.Body, written.Body) {
					err = fmt.Errorf("written was %s, read was %s", written.Body, got.Body)
				}
				return err
			}
			inAList := func() error {
				got, err := tally.Send(reader, "GET", "/chat-sessions?$limit=5", "")
				if err == nil && got.Status == 200 && !bytes.Contains(got.Body, written.Body) {
					err = fmt.Errorf("written was %s, the list was %s", written.Body, got.Body)
				}
				return err
			}
			questions := []func() error{byID, inAList, inAList, byID}
			if n%2 == 1 {
				questions = []func() error{inAList, byID, byID, inAList}
			}
			for asked, ask := range questions {
				if asked == 2 {
					if written, err = tally.Send(writer, "PATCH", path, `{"start": true}`); err != nil || written.Status != 200 {
						return err
					}
				}
				if err := ask(); err != nil {
					return err
				}
			}
		}
		return nil
	})
	tally.Check(t)
}
