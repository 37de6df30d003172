package projections

import (
	"context"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// A beforeEach is called before each command of a client, and can refuse it.
type beforeEach func(cmd redis.Cmder) error

// DialHook implements redis.Hook.
func (beforeEach) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements redis.Hook.
func (f beforeEach) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if err := f(cmd); err != nil {
			cmd.SetErr(err)
			return err
		}
		return next(ctx, cmd)
	}
}

// ProcessPipelineHook implements redis.Hook. Of a pipeline, all is sent or nothing.
func (f beforeEach) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if err := f(cmds[0]); err != nil {
			for _, cmd := range cmds {
				cmd.SetErr(err)
			}
			return err
		}
		return next(ctx, cmds)
	}
}

// isRun says whether a command runs a script.
func isRun(cmd redis.Cmder, script *redis.Script) bool {
	args := cmd.Args()
	return len(args) > 1 && args[0] == "evalsha" && args[1] == script.Hash()
}

// A heldLog is a log of which one who uses it gets nothing durable from a position on,
// until it is let go. Others are not held up.
type heldLog struct {
	*fakeLog
	from  atomic.Uint64 // 0 for nothing
	letGo chan struct{} // closed then
}

func newHeldLog(log *fakeLog) *heldLog { return &heldLog{fakeLog: log, letGo: make(chan struct{})} }

// Durable returns when the position is not held.
func (l *heldLog) Durable(ctx context.Context, position uint64) error {
	if from := l.from.Load(); from == 0 || position < from {
		return nil
	}
	select {
	case <-l.letGo:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
