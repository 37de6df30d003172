package projector

import (
	_ "embed" // the scripts

	"github.com/redis/go-redis/v9"
)

// The scripts. Each documents its arguments and reply at the top. They use only commands
// that both Redis and miniredis have.
var (
	//go:embed sweep.lua
	sweepSource string
	//go:embed retry.lua
	retrySource string
	//go:embed rebuilding.lua
	rebuildingSource string

	sweepScript      = redis.NewScript(sweepSource)
	retryScript      = redis.NewScript(retrySource)
	rebuildingScript = redis.NewScript(rebuildingSource)
)
