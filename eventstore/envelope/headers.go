package envelope

import (
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
)

// percentEncode encodes a header's value by the NATS protocol binding of CloudEvents
// (section 3.1.3.2): space, double quote, percent, and everything outside printable ASCII.
func percentEncode(s string) string {
	const hex = "0123456789ABCDEF"
	plain := func(c byte) bool { return c > ' ' && c <= '~' && c != '"' && c != '%' }
	i := 0
	for i < len(s) && plain(s[i]) {
		i++
	}
	if i == len(s) {
		return s
	}
	b := append(make([]byte, 0, len(s)+16), s[:i]...)
	for ; i < len(s); i++ {
		if c := s[i]; plain(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}

// headerValue returns the decoded value of a header, "" for a missing one. The binding
// requires readers to unquote a value in double quotes first.
func headerValue(h nats.Header, name string) (string, error) {
	values := h[name]
	switch {
	case len(values) == 0:
		return "", nil
	case len(values) > 1:
		return "", fmt.Errorf("%s occurs %d times", name, len(values))
	}
	value := values[0]
	if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
		value = unquote(value[1 : len(value)-1])
	}
	value, err := percentDecode(value)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return value, nil
}

// unquote removes the backslashes of a quoted string (RFC 7230, section 3.2.6).
func unquote(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b = append(b, s[i])
	}
	return string(b)
}

func percentDecode(s string) (string, error) {
	decoded, err := url.PathUnescape(s)
	if err != nil || decoded == s {
		return decoded, err
	}
	if !utf8.ValidString(decoded) {
		return "", fmt.Errorf("%q does not decode to UTF-8", s)
	}
	return decoded, nil
}
