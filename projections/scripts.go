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
	//go:embed scripts/slice.lua
	sliceSource string
	//go:embed scripts/members.lua
	membersSource string
	//go:embed scripts/sizes.lua
	sizesSource string
	//go:embed scripts/seek.lua
	seekSource string
	//go:embed scripts/savequery.lua
	saveQuerySource string

	sweepScript   = redis.NewScript(sweepSource)
	sliceScript   = redis.NewScript(sliceSource)
	membersScript = redis.NewScript(membersSource)
	sizesScript   = redis.NewScript(sizesSource)
	seekScript    = redis.NewScript(seekSource)

	//go:embed scripts/layouts.lua
	layoutsSource string
	//go:embed scripts/retry.lua
	retrySource string

	//go:embed scripts/comparekeys.lua
	compareKeysSource string
	//go:embed scripts/compareindex.lua
	compareIndexSource string
	//go:embed scripts/comparesession.lua
	compareSessionSource string

	compareKeysScript    = redis.NewScript(compareKeysSource)
	compareIndexScript   = redis.NewScript(compareIndexSource)
	compareSessionScript = redis.NewScript(compareSessionSource)

	layoutsScript   = redis.NewScript(layoutsSource)
	retryScript     = redis.NewScript(retrySource)
	saveQueryScript = redis.NewScript(saveQuerySource)
)
