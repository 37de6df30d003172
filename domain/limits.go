package domain

import (
	"fmt"
	"unicode"
	"unicode/utf8"
)

// Limits of the session's values. Lengths are in characters (code points).
const (
	MaxRoom         = 256
	MaxReason       = 1024
	MaxAccount      = 128
	MaxParticipants = 100
)

// CheckType describes what is wrong with a session's type; "" if nothing is.
func CheckType(s string) string {
	if s != TypeTelemed {
		return fmt.Sprintf("%q is not a type; the only one is %q", s, TypeTelemed)
	}
	return ""
}

// CheckRoom describes what is wrong with the name of a room; "" if nothing is.
func CheckRoom(s string) string { return checkText(s, 1, MaxRoom) }

// CheckReason describes what is wrong with a reason; "" if nothing is.
func CheckReason(s string) string { return checkText(s, 0, MaxReason) }

// CheckAccount describes what is wrong with an account uid; "" if nothing is.
func CheckAccount(s string) string { return checkText(s, 1, MaxAccount) }

// CheckParticipants lists what is wrong with them, by pointers relative to their array.
func CheckParticipants(uids []string) []FieldError {
	var wrong []FieldError
	if len(uids) > MaxParticipants {
		wrong = append(wrong, FieldError{"", fmt.Sprintf("%d participants; there may be at most %d", len(uids), MaxParticipants)})
		uids = uids[:MaxParticipants]
	}
	first := make(map[string]int, len(uids))
	for i, uid := range uids {
		pointer := fmt.Sprintf("/%d", i)
		if problem := CheckAccount(uid); problem != "" {
			wrong = append(wrong, FieldError{pointer, problem})
			continue
		}
		if j, seen := first[uid]; seen {
			wrong = append(wrong, FieldError{pointer, fmt.Sprintf("the same account as /participants/%d; name each once", j)})
			continue
		}
		first[uid] = i
	}
	return wrong
}

func checkText(s string, least, most int) string {
	switch n := utf8.RuneCountInString(s); {
	case n < least:
		return "is empty; give at least one character"
	case n > most:
		return fmt.Sprintf("has %d characters; there may be at most %d", n, most)
	}
	for _, r := range s {
		if unicode.IsControl(r) && r != '\t' && r != '\n' && r != '\r' {
			return fmt.Sprintf("has the control character %U; only tab and line breaks are allowed", r)
		}
	}
	return ""
}

// MaxTime is 8.64·10¹⁵ ms, the end of ECMAScript's time (ECMA-262, section 21.4.1.1).
const MaxTime int64 = 8_640_000_000_000_000
