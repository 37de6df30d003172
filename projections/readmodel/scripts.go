package readmodel

import (
	_ "embed" // the scripts

	"github.com/redis/go-redis/v9"
)

// The scripts. Each says at its top what it is given and what it returns. They
// use only what both Redis and miniredis have.
var (
	//go:embed list.lua
	listSource string
	//go:embed layouts.lua
	layoutsSource string
	//go:embed savequery.lua
	saveQuerySource string

	listScript      = redis.NewScript(listSource)
	layoutsScript   = redis.NewScript(layoutsSource)
	saveQueryScript = redis.NewScript(saveQuerySource)
)
