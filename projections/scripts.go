package projections

import (
	_ "embed" // the scripts

	"github.com/redis/go-redis/v9"
)

// The scripts. Each says at its top what it is given and what it returns. They
// use only what both Redis and miniredis have.
var (
	//go:embed scripts/clear.lua
	clearSource string
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

	clearScript   = redis.NewScript(clearSource)
	sliceScript   = redis.NewScript(sliceSource)
	membersScript = redis.NewScript(membersSource)
	sizesScript   = redis.NewScript(sizesSource)
	seekScript    = redis.NewScript(seekSource)

	saveQueryScript = redis.NewScript(saveQuerySource)
)
