package http

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"

	"github.com/gofiber/fiber/v2"
	"github.com/google/uuid"

	"chatsessions/http/problem"
)

const (
	headerPosition    = "Chat-Sessions-Position"
	headerKey         = "Idempotency-Key"
	headerIgnored     = "Ignored-Fields"
	headerTotal       = "X-Total-Count"
	headerPrefer      = "Prefer"
	headerPrefApplied = "Preference-Applied"
	headerSource      = "Chat-Sessions-Source"
)

// A tagList is the value of If-Match or If-None-Match (RFC 9110, section 8.8.3).
type tagList struct {
	given bool
	any   bool
	tags  []tag
}

type tag struct {
	value string // with its quotes
	weak  bool
}

func (l tagList) holds(etag string, weakly bool) bool {
	return l.any || slices.ContainsFunc(l.tags, func(t tag) bool {
		return t.value == etag && (weakly || !t.weak)
	})
}

// parseTags reads a list of entity tags.
func parseTags(name, value string) (tagList, error) {
	rest := strings.TrimSpace(value)
	list := tagList{given: rest != "", any: rest == "*"}
	if list.any || !list.given {
		return list, nil
	}
	for rest = strings.TrimLeft(rest, ", \t"); rest != ""; { // elements of a list may be empty
		var t tag
		rest, t.weak = strings.CutPrefix(rest, "W/")
		end := strings.IndexByte(strings.TrimPrefix(rest, `"`), '"')
		if !strings.HasPrefix(rest, `"`) || end < 0 {
			return list, problem.BadRequest(`%s: %q is not an entity tag; send one as it came in ETag, such as "3" with its quotes`, name, value)
		}
		t.value = strings.Clone(rest[:end+2])
		list.tags = append(list.tags, t)
		rest = strings.TrimLeft(rest[end+2:], " \t")
		if rest != "" && rest[0] != ',' {
			return list, problem.BadRequest("%s: entity tags are separated by commas", name)
		}
		rest = strings.TrimLeft(rest, ", \t")
	}
	return list, nil
}

// conditions are those of a request on the version of a session.
type conditions struct{ match, noneMatch tagList }

func parseConditions(c *fiber.Ctx) (k conditions, err error) {
	if k.match, err = parseTags(fiber.HeaderIfMatch, wholeList(c, fiber.HeaderIfMatch)); err != nil {
		return k, err
	}
	// Of a client's variable that is not set. To ignore it would undo what it is there for.
	if !k.match.any && len(k.match.tags) == 0 && len(c.Request().Header.PeekAll(fiber.HeaderIfMatch)) > 0 {
		return k, problem.BadRequest("%s is empty; send an entity tag as it came in ETag, or leave the header out", fiber.HeaderIfMatch)
	}
	k.noneMatch, err = parseTags(fiber.HeaderIfNoneMatch, wholeList(c, fiber.HeaderIfNoneMatch))
	return k, err
}

// wholeList returns a header whose value is a list: it may come in several lines
// (RFC 9110, section 5.3).
func wholeList(c *fiber.Ctx, name string) string {
	return string(bytes.Join(c.Request().Header.PeekAll(name), []byte(", ")))
}

// allow says whether a change of this version may be made
// (RFC 9110, sections 13.1.1 and 13.1.2).
func (k conditions) allow(version uint64) bool {
	return (!k.match.given || k.match.holds(problem.ETag(version), false)) &&
		(!k.noneMatch.given || !k.noneMatch.holds(problem.ETag(version), true))
}

// answer judges the conditions of a GET of what has this entity tag, and is made of
// this version of a session: true where that was all, a 304
// (RFC 9110, section 13.2.2).
func (k conditions) answer(c *fiber.Ctx, version uint64, etag string) (bool, error) {
	if k.match.given && !k.match.holds(etag, false) {
		return false, problem.PreconditionFailed(version, etag)
	}
	if !k.noneMatch.given || !k.noneMatch.holds(etag, true) {
		return false, nil
	}
	c.Set(fiber.HeaderETag, etag)
	c.Set(fiber.HeaderCacheControl, cachePrivately)
	return true, c.SendStatus(fiber.StatusNotModified)
}

// preferences are what a client would like (RFC 7240).
type preferences struct{ strict, count bool }

// parsePrefer reads the preferences; of one that is given more than once, the first
// counts (section 2).
func parsePrefer(c *fiber.Ctx) preferences {
	first := map[string]string{}
	for preference := range strings.SplitSeq(wholeList(c, headerPrefer), ",") {
		preference, _, _ = strings.Cut(preference, ";")
		name, value, _ := strings.Cut(preference, "=")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.Trim(strings.TrimSpace(value), `"`)
		if _, again := first[name]; !again {
			first[name] = value
		}
	}
	return preferences{
		strict: strings.EqualFold(first["handling"], "strict"),
		count:  strings.EqualFold(first["count"], "exact"),
	}
}

// parsePosition reads Chat-Sessions-Position; 0 when there is none.
func parsePosition(c *fiber.Ctx) (uint64, error) {
	given := c.Get(headerPosition)
	if given == "" {
		return 0, nil
	}
	position, err := strconv.ParseUint(given, 10, 64)
	if err != nil {
		return 0, problem.BadRequest("%s: %q is not a position; send one as it came in that header", headerPosition, given)
	}
	return position, nil
}

// A requestKey is the identity of a repeatable request: the hash of caller,
// method, path and Idempotency-Key. The zero value is a request without a key.
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
		// Length first, so that no two lists of parts run together to the same bytes.
		_ = binary.Write(h, binary.BigEndian, uint32(len(part)))
		h.Write([]byte(part))
	}
	return requestKey{[sha256.Size]byte(h.Sum(nil)), true}, nil
}

// String returns the key's hash in hex, "" where there is no key.
func (k requestKey) String() string {
	if !k.given {
		return ""
	}
	return hex.EncodeToString(k.hash[:])
}

// sessionID returns the id of the session that a POST creates: with a key it
// follows from the key (UUIDv8, RFC 9562), so that a repetition meets it.
func (k requestKey) sessionID() string {
	if !k.given {
		return newID()
	}
	id := uuid.UUID(k.hash[:16])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id.String()
}

// digest returns the hash in hex of the body that came with the key, "" without one.
func (k requestKey) digest(body []byte) string {
	if !k.given {
		return ""
	}
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}
