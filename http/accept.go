package http

import (
	"mime"
	"strconv"
	"strings"
)

// negotiate returns the index of the offered media type that the client prefers (RFC 9110,
// section 12.5.1): the one of the highest quality; of two such, the one that it names more
// closely; then the earlier one. It returns -1 if none is acceptable. A client without
// Accept takes anything. An element that cannot be read is skipped.
//
// Fiber's c.Accepts is not used because it is wrong here, as a test shows: a range with q=0
// is skipped and so excludes nothing, the quality of a type is not that of the closest range,
// an invalid quality counts as 1, and only the first line of the header is read.
func negotiate(accept string, offers []string) int {
	if strings.Trim(accept, ", \t") == "" {
		return 0
	}
	best, bestQuality, bestCloseness := -1, 0.0, notNamed
	ranges := parseAccept(accept)
	for i, offer := range offers {
		quality, closeness := 0.0, notNamed
		for _, r := range ranges {
			if how := r.names(offer); how > closeness || how == closeness && r.quality > quality {
				quality, closeness = r.quality, how
			}
		}
		if closeness == notNamed || quality == 0 {
			continue
		}
		if quality > bestQuality || quality == bestQuality && closeness > bestCloseness {
			best, bestQuality, bestCloseness = i, quality, closeness
		}
	}
	return best
}

// A mediaRange is one element of Accept.
type mediaRange struct {
	media   string // "*/*", "application/*", or a whole type, in lower case
	quality float64
}

// How closely a range names a media type. The quality is that of the closest range.
const (
	notNamed = iota
	namedWithAll
	namedWithItsKind
	namedItself
)

func (r *mediaRange) names(media string) int {
	kind, _, _ := strings.Cut(media, "/")
	switch r.media {
	case media:
		return namedItself
	case kind + "/*":
		return namedWithItsKind
	case "*/*", "*": // some old clients send the short form
		return namedWithAll
	}
	return notNamed
}

// parseAccept reads the elements of Accept. It drops those with a parameter that no
// representation here has, because they match none.
func parseAccept(accept string) []mediaRange {
	var ranges []mediaRange
	for element := range strings.SplitSeq(accept, ",") {
		media, params, err := mime.ParseMediaType(element)
		if err != nil {
			continue
		}
		r := mediaRange{media, 1}
		if weight, weighed := params["q"]; weighed {
			if r.quality, err = strconv.ParseFloat(weight, 64); err != nil || !(0 <= r.quality && r.quality <= 1) {
				continue
			}
			delete(params, "q")
		}
		if strings.EqualFold(params["charset"], "utf-8") { // JSON is always UTF-8
			delete(params, "charset")
		}
		if len(params) == 0 {
			ranges = append(ranges, r)
		}
	}
	return ranges
}
