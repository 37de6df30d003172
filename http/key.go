package http

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strings"

	"github.com/gofiber/fiber/v2"
	"github.com/google/uuid"

	"chatsessions/http/problem"
)

// A requestKey is the hash of caller, method, path, and Idempotency-Key; zero without a key.
type requestKey struct {
	hash  [sha256.Size]byte
	given bool
}

// maxKey bounds an Idempotency-Key, in bytes.
const maxKey = 255

func parseKey(c *fiber.Ctx, account, path string) (requestKey, error) {
	keys := c.Request().Header.PeekAll(headerKey)
	if len(keys) == 0 {
		return requestKey{}, nil
	}
	if len(keys) > 1 {
		return requestKey{}, problem.BadRequest("%s is given %d times; a request has one", headerKey, len(keys))
	}
	key := string(keys[0])
	if len(key) == 0 || len(key) > maxKey || strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' }) {
		return requestKey{}, problem.BadRequest("%s: a key has 1 to %d printable ASCII characters", headerKey, maxKey)
	}
	h := sha256.New()
	for _, part := range []string{account, c.Method(), path, key} {
		// Length first, so that no two lists of parts give the same bytes.
		_ = binary.Write(h, binary.BigEndian, uint32(len(part)))
		h.Write([]byte(part))
	}
	return requestKey{[sha256.Size]byte(h.Sum(nil)), true}, nil
}

// String returns the hash in hex, "" without a key.
func (k requestKey) String() string {
	if !k.given {
		return ""
	}
	return hex.EncodeToString(k.hash[:])
}

// sessionID returns the id of the session that a POST creates. With a key, it is derived
// from the key (UUIDv8, RFC 9562), so that a repeated request finds the session.
func (k requestKey) sessionID() string {
	if !k.given {
		return newID()
	}
	id := uuid.UUID(k.hash[:16])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id.String()
}

// digest returns the hash of the body in hex, "" without a key.
func (k requestKey) digest(body []byte) string {
	if !k.given {
		return ""
	}
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}
