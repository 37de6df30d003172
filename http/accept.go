package http

import (
	"mime"
	"strconv"
	"strings"
)

// negotiate returns the index of the offered media type that the client prefers (RFC 9110,
// section 12.5.1), by quality, then by how closely it is named, then by order; -1 for none.
// An element that cannot be read is skipped.
//
// Fiber's c.Accepts gets q=0, the closest range, invalid qualities, and repeated headers wrong;
// a test shows it.
func negotiate(accept string, offers []string) int {
	if strings.Trim(accept, ", \t") == "" {
		return 0
	}
	ranges := parseAccept(accept)
	best, bestQuality, bestCloseness := -1, 0.0, 0
	for i, offer := range offers {
		kind, _, _ := strings.Cut(offer, "/")
		quality, closeness := 0.0, 0
		for how, name := range []string{"*/*", kind + "/*", offer} { // the closest range counts
			if q, given := ranges[name]; given {
				quality, closeness = q, how
			}
		}
		if quality > bestQuality || quality > 0 && quality == bestQuality && closeness > bestCloseness {
			best, bestQuality, bestCloseness = i, quality, closeness
		}
	}
	return best
}

// parseAccept returns the quality of each media range. It drops those with a parameter that no
// representation here has, because they match none.
func parseAccept(accept string) map[string]float64 {
	ranges := map[string]float64{}
	for element := range strings.SplitSeq(accept, ",") {
		media, params, err := mime.ParseMediaType(element)
		if err != nil {
			continue
		}
		quality := 1.0
		if weight, weighed := params["q"]; weighed {
			if quality, err = strconv.ParseFloat(weight, 64); err != nil || !(0 <= quality && quality <= 1) {
				continue
			}
			delete(params, "q")
		}
		if strings.EqualFold(params["charset"], "utf-8") { // JSON is always UTF-8
			delete(params, "charset")
		}
		if media == "*" { // some old clients send the short form
			media = "*/*"
		}
		if len(params) == 0 {
			ranges[media] = max(quality, ranges[media])
		}
	}
	return ranges
}
