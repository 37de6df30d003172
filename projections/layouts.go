package projections

import (
	"context"
	"fmt"
	"time"
)

// layoutsKey is where each node says, several times a second, in which layout it keeps
// its read model. It is the same for all layouts, and always will be.
const layoutsKey = "cs:layouts"

// layoutLife is how long a layout counts as in use after a node has said so.
const layoutLife = 10 * time.Second

// While nodes of two layouts run side by side, as in a rolling upgrade, a write that is
// answered because one read model has it may be missing in the other. Those who read
// therefore ask the log for its end before each answer, and a node that is new waits
// for Bound until it serves: by then every other node knows of it.

// register says that this layout is in use, and returns whether another one is.
func (m *ReadModel) register(ctx context.Context) (others bool, err error) {
	n, err := layoutsScript.Run(ctx, m.rdb, []string{layoutsKey}, layoutOf(len(m.partitions)), layoutLife.Milliseconds()).Int()
	if err != nil {
		return true, fmt.Errorf("say which layout the read model has: %w", err)
	}
	return n > 0, nil
}
