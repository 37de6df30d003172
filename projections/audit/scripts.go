package audit

import (
	_ "embed" // the scripts

	"github.com/redis/go-redis/v9"
)

// The scripts. Each says at its top what it is given and what it returns. They
// use only what both Redis and miniredis have.
var (
	//go:embed verifykeys.lua
	verifyKeysSource string
	//go:embed compareindex.lua
	compareIndexSource string
	//go:embed comparesession.lua
	compareSessionSource string

	verifyKeysScript     = redis.NewScript(verifyKeysSource)
	compareIndexScript   = redis.NewScript(compareIndexSource)
	compareSessionScript = redis.NewScript(compareSessionSource)
)
