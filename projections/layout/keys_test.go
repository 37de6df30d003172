package layout

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"chatsessions/domain"
	"chatsessions/projections/logtest"
)

func TestMembersAreInTheOrderOfTheirPlaces(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		time := rapid.OneOf(rapid.Int64Range(0, 3), rapid.Int64Range(0, domain.MaxTime))
		a, b := time.Draw(rt, "a"), time.Draw(rt, "b")
		m, n := rapid.IntRange(0, 3).Draw(rt, "m"), rapid.IntRange(0, 3).Draw(rt, "n")
		first, err := AppendMember(nil, a, logtest.ID(m))
		logtest.MustRun(t, err)
		second, err := AppendMember(nil, b, logtest.ID(n))
		logtest.MustRun(t, err)
		one, other := string(first), string(second)
		if before := a < b || a == b && m < n; before != (one < other) {
			rt.Fatalf("(%d, %d) and (%d, %d)", a, m, b, n)
		}
		if at, is := MemberPlace(one); at != a || is != logtest.ID(m) {
			rt.Fatalf("placeOf returned %d, %s", at, is)
		}
		low, high, ok := LexTimes(a, b)
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
		if _, _, ok := LexTimes(r[0], r[1]); ok {
			t.Errorf("%v", r)
		}
	}
	if low, high, ok := LexTimes(math.MinInt64, math.MaxInt64); low != "-" || high != "+" || !ok {
		t.Errorf("everything: %q, %q, %v", low, high, ok)
	}
}

func TestOnlyCanonicalIDsAreIDs(t *testing.T) {
	for _, good := range []string{logtest.ID(0), logtest.ID(0xabcdef)} {
		if !IsID(good) {
			t.Error(good)
		}
	}
	for _, bad := range []string{"", "x", strings.ToUpper(logtest.ID(0xabcdef)), logtest.ID(1)[:35], logtest.ID(1) + "0", strings.ReplaceAll(logtest.ID(1), "-", "") + "0000", strings.Replace(logtest.ID(1), "7", "g", 1)} {
		if IsID(bad) {
			t.Error(bad)
		}
	}
}

func TestValuesInKeysAreShortAndSafe(t *testing.T) {
	for value, same := range map[string]bool{
		"alice": true, "a:b|c@d.e": true, logtest.ID(1): true, strings.Repeat("x", 64): true,
		"": false, "a b": false, "a\nb": false, "~alice": false, "ü": false, strings.Repeat("x", 65): false, "\x7f": false,
	} {
		got := keyForm(value)
		if (got == value) != same || len(got) > maxPlain || strings.ContainsAny(got, " \n") {
			t.Errorf("bounded(%q) is %q", value, got)
		}
	}
}

func TestADocumentIsReadAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		for i, s := range logtest.Histories(rt) {
			written, err := NewDocument(&domain.Entry{Record: &domain.Record{Event: domain.Event{Session: s}, Position: uint64(i)}})
			logtest.MustRun(t, err)
			d, err := DecodeDocument(string(written.Value))
			logtest.MustRun(t, err)
			if d.JSON != logtest.JSON(s) || d.Version != s.Version || d.Position != uint64(i) {
				rt.Fatalf("%+v", d)
			}
			if !json.Valid([]byte(d.JSON)) {
				rt.Fatalf("not JSON: %s", d.JSON)
			}
			for _, account := range append(s.Readers(), "alic", "lice", "zoe", "", ":alice", "s") {
				sees, err := d.VisibleTo(account)
				logtest.MustRun(t, err)
				if c := (domain.Caller{Account: account, Role: domain.RoleAccount}); sees != (account != "" && c.MaySee(&s)) {
					rt.Fatalf("%q sees it: %v", account, sees)
				}
			}
			if d.Entries != written.Entries {
				rt.Fatalf("entries %q, written were %q", d.Entries, written.Entries)
			}
			names := slices.Sorted(d.Entries.Indexes())
			if want := slices.Sorted(slices.Values(indexNames(&s))); !slices.Equal(names, want) {
				rt.Fatalf("in %q, want %q: %q", names, want, d.Entries.values)
			}
			for _, name := range names {
				if !d.Entries.IsIn(name) {
					rt.Fatalf("not in %s: %q", name, d.Entries.values)
				}
			}
			for _, name := range []string{"state:", "room:lice", "createdBy:r1", "room:alice", "state:r1", "createdBy:lice"} {
				if d.Entries.IsIn(name) && !slices.Contains(names, name) {
					rt.Fatalf("in %s: %q", name, d.Entries.values)
				}
			}
		}
	})
}

// indexNames lists the indexes that a session belongs in.
func indexNames(s *domain.Session) []string {
	names := []string{IndexAll}
	for _, field := range domain.FilterFields() {
		for _, value := range s.FilterValues(field) {
			names = append(names, FieldIndex(field, value))
		}
	}
	return names
}

func TestWhatIsNoDocumentIsAnError(t *testing.T) {
	for _, value := range []string{"", "{}", "{}\n", "{}\n" + strings.Repeat("m", 24), "{}\n" + strings.Repeat("m", 24) + " s:created \nx 1", "{}\n" + strings.Repeat("m", 24) + " s:created \n1"} {
		if _, err := DecodeDocument(value); err == nil {
			t.Errorf("%q", value)
		}
	}
	if _, err := NewDocument(&domain.Entry{Record: &domain.Record{Event: domain.Event{Session: logtest.Session(1, -1)}}}); err == nil {
		t.Error("a time before 1970")
	}
	if _, err := NewDocument(&domain.Entry{Record: &domain.Record{Event: domain.Event{Session: logtest.Session(1, 1, func(s *domain.Session) { s.ID = "x" })}}}); err == nil {
		t.Error("an id that is no UUID")
	}
}
