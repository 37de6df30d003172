package domain_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"chatsessions/domain"
)

// TestLimitsOfTexts checks each limit at its boundary, in characters, not bytes.
func TestLimitsOfTexts(t *testing.T) {
	for _, check := range []struct {
		name  string
		of    func(string) string
		empty string // the problem with an empty text
		most  int
	}{
		{"room", domain.CheckRoom, "is empty; give at least one character", 256},
		{"reason", domain.CheckReason, "", 1024},
		{"account", domain.CheckAccount, "is empty; give at least one character", 128},
	} {
		for text, want := range map[string]string{
			"":                                   check.empty,
			"a":                                  "",
			strings.Repeat("ü", check.most):      "",
			strings.Repeat("ü", check.most+1):    fmt.Sprintf("has %d characters; there may be at most %d", check.most+1, check.most),
			"tab\tand\nline\r\nbreaks":           "",
			"a\x00b":                             "has the control character U+0000; only tab and line breaks are allowed",
			"a\x1fb":                             "has the control character U+001F; only tab and line breaks are allowed",
			"a\u0085b":                           "has the control character U+0085; only tab and line breaks are allowed",
			"zażółć \U0001d11e \u2028 </script>": "",
		} {
			if got := check.of(text); got != want {
				t.Errorf("%s %q: %q, want %q", check.name, text, got, want)
			}
		}
	}
}

func TestTheOnlyTypeIsTelemed(t *testing.T) {
	if got := domain.CheckType("telemed"); got != "" {
		t.Errorf("telemed: %q", got)
	}
	for _, wrong := range []string{"", "Telemed", "video"} {
		if got, want := domain.CheckType(wrong), fmt.Sprintf("%q is not a type; the only one is %q", wrong, "telemed"); got != want {
			t.Errorf("%q: %q, want %q", wrong, got, want)
		}
	}
}

func TestLimitsOfParticipants(t *testing.T) {
	accounts := func(n int) []string {
		uids := make([]string, n)
		for i := range uids {
			uids[i] = fmt.Sprintf("account-%d", i)
		}
		return uids
	}
	for name, test := range map[string]struct {
		uids []string
		want []domain.FieldError
	}{
		"none":           {nil, nil},
		"as many as may": {accounts(100), nil},
		"too many":       {accounts(101), []domain.FieldError{{Detail: "101 participants; there may be at most 100"}}},
		// What lies behind the limit is not looked at.
		"too many, and the last is wrong": {append(accounts(100), ""), []domain.FieldError{{Detail: "101 participants; there may be at most 100"}}},
		"an empty one":                    {[]string{"a", ""}, []domain.FieldError{{Pointer: "/1", Detail: "is empty; give at least one character"}}},
		"some twice": {[]string{"a", "b", "a", "b", "a"}, []domain.FieldError{
			{Pointer: "/2", Detail: "the same account as /participants/0; name each once"},
			{Pointer: "/3", Detail: "the same account as /participants/1; name each once"},
			{Pointer: "/4", Detail: "the same account as /participants/0; name each once"},
		}},
		"a wrong one twice": {[]string{"", ""}, []domain.FieldError{
			{Pointer: "/0", Detail: "is empty; give at least one character"}, {Pointer: "/1", Detail: "is empty; give at least one character"},
		}},
	} {
		if got := domain.CheckParticipants(test.uids); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}
