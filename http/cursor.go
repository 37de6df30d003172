package http

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math"

	"github.com/google/uuid"

	"chatsessions/domain"
	"chatsessions/domain/query"
	"chatsessions/http/problem"
)

// A cursor is base64url of a byte for its kind, createdAt and id after which the next page
// starts, and the query. The read model keeps a long query; its digest keeps links short.
const (
	cursorWithQuery  = 'q'
	cursorWithDigest = 'd'

	cursorPlace    = 1 + 8 + 16 // bytes before the query
	maxCursorQuery = 192        // bytes of a query in the cursor itself
)

func (s *Server) cursor(ctx context.Context, account, query string, after query.Place) (string, error) {
	kind := byte(cursorWithQuery)
	if len(query) > maxCursorQuery {
		digest, err := s.Reads.SaveQuery(ctx, account, query)
		if err != nil {
			return "", err
		}
		kind, query = cursorWithDigest, digest
	}
	id, err := uuid.Parse(after.ID)
	if err != nil {
		return "", err
	}
	raw := append(make([]byte, 0, cursorPlace+len(query)), kind)
	raw = binary.BigEndian.AppendUint64(raw, uint64(after.CreatedAt))
	raw = append(raw, id[:]...)
	raw = append(raw, query...)
	return base64.RawURLEncoding.EncodeToString(raw), nil
}

// openCursor returns the query of a cursor, and the place after which the page starts.
func (s *Server) openCursor(ctx context.Context, account, cursor string) (text string, after query.Place, err error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(raw) < cursorPlace {
		return "", after, badCursor()
	}
	createdAt := binary.BigEndian.Uint64(raw[1:9])
	if createdAt > math.MaxInt64 {
		return "", after, badCursor()
	}
	after = query.Place{CreatedAt: int64(createdAt), ID: uuid.UUID(raw[9:cursorPlace]).String()}
	text = string(raw[cursorPlace:])
	switch raw[0] {
	case cursorWithQuery:
		return text, after, nil
	case cursorWithDigest:
		ctx, cancel := context.WithTimeout(ctx, readDeadline)
		defer cancel()
		text, err = s.Reads.LoadQuery(ctx, account, text)
		if errors.Is(err, domain.ErrNotFound) {
			return "", after, problem.BadRequest("$cursor is too old: its query is not kept any more, or was another account's; start again with the first page")
		}
		return text, after, err
	}
	return "", after, badCursor()
}

func badCursor() error {
	return problem.BadRequest("$cursor is not one that came in a Link header; follow that link as it is")
}
