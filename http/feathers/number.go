package feathers

import (
	"math"
	"regexp"
	"strconv"
	"strings"
)

// jsonNumber is the grammar of RFC 8259, section 6.
var jsonNumber = regexp.MustCompile(`^(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?$`)

// Whole reads a whole number between least and most, written as a JSON number.
func Whole(text string, least, most int64) (int64, bool) {
	n, ok := readWhole(text)
	return n, ok && least <= n && n <= most
}

// readWhole reads a whole JSON number, such as 1e3 and 1.0, exactly where a float would round.
// More than 18 digits become the largest or the smallest.
func readWhole(text string) (int64, bool) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && '1' <= text[0] && text[0] <= '9' {
		return n, true // the usual case
	}
	parts := jsonNumber.FindStringSubmatch(text)
	if parts == nil {
		return 0, false
	}
	sign, whole, fraction := parts[1], parts[2], parts[3]
	const far = 1 << 20                   // beyond any number that a body can hold
	exponent, _ := strconv.Atoi(parts[4]) // 0 without one; the nearest if it is out of range
	// value = significant · 10^shift
	shift := max(-far, min(exponent, far)) - len(fraction)
	significant := strings.TrimLeft(whole+fraction, "0")
	if significant == "" {
		return 0, true
	}
	trimmed := strings.TrimRight(significant, "0")
	shift += len(significant) - len(trimmed)
	if shift < 0 {
		return 0, false
	}
	var n int64 = math.MaxInt64
	if len(trimmed)+shift <= 18 { // that many digits fit into an int64
		n, _ = strconv.ParseInt(trimmed+strings.Repeat("0", shift), 10, 64)
	}
	if sign == "-" {
		n = -n
	}
	return n, true
}

func allDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
