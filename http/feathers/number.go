package feathers

import (
	"math"
	"strconv"
	"strings"
)

// Whole reads a whole number between least and most, written as a JSON number.
func Whole(text string, least, most int64) (int64, bool) {
	n, ok := readWhole(text)
	return n, ok && least <= n && n <= most
}

// readWhole reads a JSON number (RFC 8259, section 6) that is whole, however it is
// written: 1e3 and 1.0 are whole. It is exact where a float would round. A number of more
// than 18 digits becomes the largest or the smallest.
func readWhole(text string) (int64, bool) {
	digits, negative := strings.CutPrefix(text, "-")
	mantissa, exponent := digits, ""
	if i := strings.IndexAny(digits, "eE"); i >= 0 {
		mantissa, exponent = digits[:i], digits[i+1:]
		if exponent == "" {
			return 0, false
		}
	}
	whole, fraction, dotted := strings.Cut(mantissa, ".")
	if !allDigits(whole) || len(whole) > 1 && whole[0] == '0' || dotted && !allDigits(fraction) {
		return 0, false
	}
	shift, ok := parseExponent(exponent)
	if !ok {
		return 0, false
	}
	// value = significant · 10^shift
	shift -= len(fraction)
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
	if negative {
		n = -n
	}
	return n, true
}

func allDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// parseExponent reads the part of a number behind its e. It is capped beyond any number
// that a body can hold.
func parseExponent(s string) (int, bool) {
	if s == "" {
		return 0, true
	}
	sign := 1
	switch s[0] {
	case '-':
		sign, s = -1, s[1:]
	case '+':
		s = s[1:]
	}
	if !allDigits(s) {
		return 0, false
	}
	n := 0
	for _, d := range s {
		n = min(10*n+int(d-'0'), 1<<20)
	}
	return sign * n, true
}
