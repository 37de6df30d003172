package readmodel

import (
	"context"
	_ "embed" // savequery.lua
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/domain"
	"chatsessions/projections/layout"
)

//go:embed savequery.lua
var saveQuerySource string

var saveQueryScript = redis.NewScript(saveQuerySource)

const (
	// queryLife is how long a saved query is kept after its last use.
	queryLife = 24 * time.Hour
	// maxQueries bounds an account's queries, so that none fills Redis. The oldest goes first.
	maxQueries = 100
)

// SaveQuery saves the text of an account's list query for a cursor that would be too long
// with it, and returns the digest to load it by. It is kept for 24 hours after its last
// use, unless the account saves a hundred others. Saving it again is a use. It returns
// domain.ErrUnavailable if Redis cannot be reached.
func (m *ReadModel) SaveQuery(ctx context.Context, account, text string) (digest string, err error) {
	digest = layout.Digest(text)
	keys := []string{layout.QueryKey(account, digest), layout.QueriesKey(account)}
	err = saveQueryScript.Run(ctx, m.rdb, keys, text, digest, time.Now().UnixMilli(), queryLife.Milliseconds(), maxQueries, layout.QueryKey(account, "")).Err()
	if err != nil && !errors.Is(err, redis.Nil) {
		return "", fmt.Errorf("%w: save a query: %w", domain.ErrUnavailable, err)
	}
	return digest, nil
}

// LoadQuery returns what SaveQuery saved for the account, domain.ErrNotFound if that is
// nothing, or domain.ErrUnavailable if Redis cannot be reached.
func (m *ReadModel) LoadQuery(ctx context.Context, account, digest string) (string, error) {
	if !layout.IsDigest(digest) {
		return "", domain.ErrNotFound
	}
	text, err := m.rdb.GetEx(ctx, layout.QueryKey(account, digest), queryLife).Result()
	switch {
	case errors.Is(err, redis.Nil):
		return "", domain.ErrNotFound
	case err != nil:
		return "", fmt.Errorf("%w: load a query: %w", domain.ErrUnavailable, err)
	}
	return text, nil
}
