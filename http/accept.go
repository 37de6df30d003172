package http

import (
	"mime"
	"strconv"
	"strings"
)

// negotiate returns which of the offered media types the client likes best
// (RFC 9110, section 12.5.1): the one of the highest quality, of two such the one that
// it names more closely, and then the earlier. It is -1 where none will do. Who sends
// no Accept takes anything; an element that cannot be read is passed over.
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
	media   string // "*/*", "application/*" or a whole type, in lower case
	quality float64
}

// How closely a range names a media type: the closest one says its quality.
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
	case "*/*", "*": // the short form is an old habit of some clients
		return namedWithAll
	}
	return notNamed
}

// parseAccept reads the elements of Accept, but for those with a parameter that no
// representation here has: they name none of them.
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
		if strings.EqualFold(params["charset"], "utf-8") { // as JSON always is
			delete(params, "charset")
		}
		if len(params) == 0 {
			ranges = append(ranges, r)
		}
	}
	return ranges
}
