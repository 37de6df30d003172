package projections

import (
	_ "embed" // the scripts

	"github.com/redis/go-redis/v9"
)

// The scripts. Each says at its top what it is given and what it returns. They
// use only what both Redis and miniredis have.
var (
	//go:embed scripts/sweep.lua
	sweepSource string
	//go:embed scripts/list.lua
	listSource string
	//go:embed scripts/savequery.lua
	saveQuerySource string

	sweepScript = redis.NewScript(sweepSource)
	listScript  = redis.NewScript(listSource)

	//go:embed scripts/layouts.lua
	layoutsSource string
	//go:embed scripts/retry.lua
	retrySource string
	//go:embed scripts/rebuilding.lua
	rebuildingSource string

	//go:embed scripts/compareindex.lua
	compareIndexSource string
	//go:embed scripts/comparesession.lua
	compareSessionSource string

	//go:embed scripts/verifykeys.lua
	verifyKeysSource string

	verifyKeysScript     = redis.NewScript(verifyKeysSource)
	compareIndexScript   = redis.NewScript(compareIndexSource)
	compareSessionScript = redis.NewScript(compareSessionSource)

	layoutsScript    = redis.NewScript(layoutsSource)
	retryScript      = redis.NewScript(retrySource)
	rebuildingScript = redis.NewScript(rebuildingSource)
	saveQueryScript  = redis.NewScript(saveQuerySource)
)
