package readmodel

import (
	"testing"

	"github.com/redis/go-redis/v9/logging"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	logging.Disable() // go-redis tells of every server that a test has killed
	goleak.VerifyTestMain(m)
}
