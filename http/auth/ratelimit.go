package auth

import (
	"math"
	"strconv"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/maypok86/otter/v2"
	"golang.org/x/time/rate"

	"chatsessions/http/problem"
)

// A rateLimiter allows each account perSecond requests a second, and bursts of as many
// as two seconds allow.
type rateLimiter struct {
	perSecond rate.Limit
	burst     int
	now       func() time.Time
	accounts  *otter.Cache[string, *rate.Limiter]
}

// rateLimitedAccounts bounds the remembered accounts. An evicted one starts anew.
const rateLimitedAccounts = 100_000

func newRateLimiter(perSecond float64, now func() time.Time) *rateLimiter {
	if perSecond <= 0 {
		return nil
	}
	return &rateLimiter{
		perSecond: rate.Limit(perSecond),
		burst:     int(math.Ceil(2 * perSecond)),
		now:       now,
		accounts:  otter.Must(&otter.Options[string, *rate.Limiter]{MaximumSize: rateLimitedAccounts}),
	}
}

// wait returns how long the account has to wait. It counts the request only when that is 0.
func (l *rateLimiter) wait(account string) time.Duration {
	if l == nil {
		return 0
	}
	limiter, ok := l.accounts.GetIfPresent(account)
	if !ok {
		limiter, _ = l.accounts.SetIfAbsent(account, rate.NewLimiter(l.perSecond, l.burst))
	}
	now := l.now()
	reservation := limiter.ReserveN(now, 1)
	wait := reservation.DelayFrom(now)
	if wait > 0 {
		reservation.CancelAt(now)
	}
	return wait
}

func tooManyRequests(wait time.Duration) *problem.Problem {
	seconds := strconv.Itoa(max(1, int(math.Ceil(wait.Seconds()))))
	return problem.New(fiber.StatusTooManyRequests, "too many requests; try again in %s s", seconds).
		With(fiber.HeaderRetryAfter, seconds)
}
