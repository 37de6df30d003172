package projections

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"chatsessions/domain"
)

func TestMembersAreInTheOrderOfTheirPlaces(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		time := rapid.OneOf(rapid.Int64Range(0, 3), rapid.Int64Range(0, domain.MaxTime))
		a, b := time.Draw(rt, "a"), time.Draw(rt, "b")
		m, n := rapid.IntRange(0, 3).Draw(rt, "m"), rapid.IntRange(0, 3).Draw(rt, "n")
		first, err := appendMember(nil, a, id(m))
		mustRun(t, err)
		second, err := appendMember(nil, b, id(n))
		mustRun(t, err)
		one, other := string(first), string(second)
		if before := a < b || a == b && m < n; before != (one < other) {
			rt.Fatalf("(%d, %d) and (%d, %d)", a, m, b, n)
		}
		if at, is := placeOf(one); at != a || is != id(m) {
			rt.Fatalf("placeOf returned %d, %s", at, is)
		}
		low, high, ok := lexTimes(a, b)
		if ok != (a <= b) {
			rt.Fatalf("lexTimes(%d, %d) is %v", a, b, ok)
		}
		if ok && (low != "-" && one < low[1:] || high != "+" && one >= high[1:]) {
			rt.Fatalf("%d is not within %d and %d", a, a, b)
		}
	})
}

func TestTimesThatNoSessionHasAreAnEmptyRange(t *testing.T) {
	for _, r := range [][2]int64{{5, 4}, {0, -1}, {math.MinInt64, -1}, {math.MaxInt64, 0}} {
		if _, _, ok := lexTimes(r[0], r[1]); ok {
			t.Errorf("%v", r)
		}
	}
	if low, high, ok := lexTimes(math.MinInt64, math.MaxInt64); low != "-" || high != "+" || !ok {
		t.Errorf("everything: %q, %q, %v", low, high, ok)
	}
}

func TestOnlyCanonicalIDsAreIDs(t *testing.T) {
	for _, good := range []string{id(0), id(0xabcdef)} {
		if !isID(good) {
			t.Error(good)
		}
	}
	for _, bad := range []string{"", "x", strings.ToUpper(id(0xabcdef)), id(1)[:35], id(1) + "0", strings.ReplaceAll(id(1), "-", "") + "0000", strings.Replace(id(1), "7", "g", 1)} {
		if isID(bad) {
			t.Error(bad)
		}
	}
}

func TestValuesInKeysAreShortAndSafe(t *testing.T) {
	for value, same := range map[string]bool{
		"alice": true, "a:b|c@d.e": true, id(1): true, strings.Repeat("x", 64): true,
		"": false, "a b": false, "a\nb": false, "~alice": false, "ü": false, strings.Repeat("x", 65): false, "\x7f": false,
	} {
		got := bounded(value)
		if (got == value) != same || len(got) > maxPlain || strings.ContainsAny(got, " \n") {
			t.Errorf("bounded(%q) is %q", value, got)
		}
	}
}

func TestADocumentIsReadAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		for i, s := range histories(rt) {
			written, err := newDocument(&domain.Entry{Record: &domain.Record{Event: domain.Event{Session: s}, Position: uint64(i)}})
			mustRun(t, err)
			d, err := decodeDocument(string(written.value))
			mustRun(t, err)
			if d.json != jsonOf(s) || d.version != s.Version || d.position != uint64(i) {
				rt.Fatalf("%+v", d)
			}
			if !json.Valid([]byte(d.json)) {
				rt.Fatalf("not JSON: %s", d.json)
			}
			for _, account := range append(s.Readers(), "alic", "lice", "zoe", "", ":alice", "s") {
				sees, err := d.seenBy(account)
				mustRun(t, err)
				if c := (domain.Caller{Account: account, Role: domain.RoleAccount}); sees != (account != "" && c.MaySee(&s)) {
					rt.Fatalf("%q sees it: %v", account, sees)
				}
			}
			if d.entries != written.entries {
				rt.Fatalf("entries %q, written were %q", d.entries, written.entries)
			}
			names := slices.Sorted(d.indexes())
			if want := slices.Sorted(slices.Values(indexNames(&s))); !slices.Equal(names, want) {
				rt.Fatalf("in %q, want %q: %q", names, want, d.values)
			}
			for _, name := range names {
				if !d.isIn(name) {
					rt.Fatalf("not in %s: %q", name, d.values)
				}
			}
			for _, name := range []string{"state:", "room:lice", "createdBy:r1", "room:alice", "state:r1", "createdBy:lice"} {
				if d.isIn(name) && !slices.Contains(names, name) {
					rt.Fatalf("in %s: %q", name, d.values)
				}
			}
		}
	})
}

// indexNames lists the indexes that a session belongs in.
func indexNames(s *domain.Session) []string {
	names := []string{indexAll}
	for _, field := range domain.FilterFields() {
		for _, value := range s.FilterValues(field) {
			names = append(names, fieldIndex(field, value))
		}
	}
	return names
}

func TestWhatIsNoDocumentIsAnError(t *testing.T) {
	for _, value := range []string{"", "{}", "{}\n", "{}\n" + strings.Repeat("m", 24), "{}\n" + strings.Repeat("m", 24) + " s:created \nx 1", "{}\n" + strings.Repeat("m", 24) + " s:created \n1"} {
		if _, err := decodeDocument(value); err == nil {
			t.Errorf("%q", value)
		}
	}
	if _, err := newDocument(&domain.Entry{Record: &domain.Record{Event: domain.Event{Session: session(1, -1)}}}); err == nil {
		t.Error("a time before 1970")
	}
	if _, err := newDocument(&domain.Entry{Record: &domain.Record{Event: domain.Event{Session: session(1, 1, func(s *domain.Session) { s.ID = "x" })}}}); err == nil {
		t.Error("an id that is no UUID")
	}
}
