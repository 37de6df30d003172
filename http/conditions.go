package http

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"github.com/gofiber/fiber/v2"

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

// A tagList is the value of If-Match or If-None-Match (RFC 9110, section 8.8.3): entity tags
// as they are written, or "*". It is empty if the header is not given.
type tagList []string

func (l tagList) holds(etag string, weakly bool) bool {
	return slices.Contains(l, "*") || slices.Contains(l, etag) || weakly && slices.Contains(l, "W/"+etag)
}

// parseTags reads a list of entity tags.
func parseTags(name, value string) (tagList, error) {
	if strings.TrimSpace(value) == "*" {
		return tagList{"*"}, nil
	}
	var list tagList
	for rest := strings.Trim(value, ", \t"); rest != ""; { // elements of a list may be empty
		opaque := strings.TrimPrefix(rest, "W/")
		end := strings.IndexByte(strings.TrimPrefix(opaque, `"`), '"')
		if !strings.HasPrefix(opaque, `"`) || end < 0 {
			return list, problem.BadRequest(`%s: %q is not an entity tag; send one as it came in ETag, such as "3" with its quotes`, name, value)
		}
		size := len(rest) - len(opaque) + end + len(`""`)
		list = append(list, rest[:size])
		rest = strings.TrimLeft(rest[size:], " \t")
		if rest != "" && rest[0] != ',' {
			return list, problem.BadRequest("%s: entity tags are separated by commas", name)
		}
		rest = strings.TrimLeft(rest, ", \t")
	}
	return list, nil
}

// conditions are the conditions of a request on the version of a session.
type conditions struct{ match, noneMatch tagList }

func parseConditions(c *fiber.Ctx) (k conditions, err error) {
	if k.match, err = parseTags(fiber.HeaderIfMatch, wholeList(c, fiber.HeaderIfMatch)); err != nil {
		return k, err
	}
	// The client has a variable that is not set. Ignoring the header would drop the check
	// that the client wants.
	if len(k.match) == 0 && len(c.Request().Header.PeekAll(fiber.HeaderIfMatch)) > 0 {
		return k, problem.BadRequest("%s is empty; send an entity tag as it came in ETag, or leave the header out", fiber.HeaderIfMatch)
	}
	k.noneMatch, err = parseTags(fiber.HeaderIfNoneMatch, wholeList(c, fiber.HeaderIfNoneMatch))
	return k, err
}

// wholeList returns a list that may come in several lines (RFC 9110, section 5.3).
func wholeList(c *fiber.Ctx, name string) string {
	return string(bytes.Join(c.Request().Header.PeekAll(name), []byte(", ")))
}

// allow reports whether this version may be changed (RFC 9110, section 13.1).
func (k conditions) allow(version uint64) bool {
	etag := problem.ETag(version)
	return (len(k.match) == 0 || k.match.holds(etag, false)) && !k.noneMatch.holds(etag, true)
}

// answer evaluates the conditions of a GET (RFC 9110, section 13.2.2) on the tag of the
// representation, and reports whether it has answered with a 304.
func (k conditions) answer(c *fiber.Ctx, version uint64, etag string) (bool, error) {
	if len(k.match) > 0 && !k.match.holds(etag, false) {
		return false, problem.PreconditionFailed(version, etag)
	}
	if !k.noneMatch.holds(etag, true) {
		return false, nil
	}
	c.Set(fiber.HeaderETag, etag)
	c.Set(fiber.HeaderCacheControl, cachePrivately)
	return true, c.SendStatus(fiber.StatusNotModified)
}

// preferences are what a client prefers (RFC 7240).
type preferences struct{ strict, count bool }

// parsePrefer reads the preferences. The first of each name counts (section 2).
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

// parsePosition reads Chat-Sessions-Position; without one it returns 0.
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
