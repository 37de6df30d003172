package embedded

import (
	"math"
	"testing"
)

// By default, the server takes no more than 75 % of what was free when it started.
func TestOnlyTheDiskLimitsTheLog(t *testing.T) {
	e, err := Start(t.Context(), Options{StoreDir: t.TempDir(), User: "u", Password: "p"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Shutdown()
	if got := e.server.JetStreamConfig().MaxStore; got != math.MaxInt64 {
		t.Errorf("the server takes up to %d bytes", got)
	}
}
