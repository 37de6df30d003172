package feathers

import (
	"strings"
	"testing"

	"chatsessions/http/problem"
)

func TestTimesInAQuery(t *testing.T) {
	for text, want := range map[string]int64{
		"at=0": 0, "at=1795348800000": 1795348800000, "at=%231795348800000": 1795348800000, "at=#5": 5, "at=1.0": 1, "at=1e3": 1000, "at=8.64e15": 8_640_000_000_000_000,
		"at=2026-11-22T12:00:00Z": 1795348800000, "at=2026-11-22t12:00:00z": 1795348800000, "at=2026-11-22T12%3A00%3A00Z": 1795348800000,
		"at=2026-11-22T13:00:00%2B01:00": 1795348800000, "at=2026-11-22T12:00:00%2b00:00": 1795348800000, "at=2026-11-22T04:30:00-07:30": 1795348800000,
		"at=2026-11-22T12:00:00.001Z": 1795348800001, "at=2026-11-22T12:00:00.0019999999999Z": 1795348800001, "at=2026-11-22T12:00:00.1Z": 1795348800100,
		"at=1969-12-31T23:59:59.9999Z": -1, "at=0001-01-01T00:00:00Z": -62135596800000, "$select=room&at=7": 7,
	} {
		if q, err := ParseSession(text); err != nil || q.At == nil || *q.At != want {
			t.Errorf("%s: %+v, %v; want %d", text, q, err, want)
		}
	}
	for text, says := range map[string]string{
		"at=": "RFC 3339", "at": "RFC 3339", "at=noon": "RFC 3339", "at=2026-11-22": "RFC 3339", "at=2026-11-22T12:00:00": "RFC 3339", "at=1.5": "RFC 3339",
		"at=2026-02-30T12:00:00Z": "RFC 3339", "at=2026-11-22T24:00:00Z": "RFC 3339",
		"at=2026-11-22T12:00:00%2B25:00": "RFC 3339", "at=2026-11-22%2012:00:00Z": "RFC 3339", "at=+5": "RFC 3339",
		"at=2026-11-22T12:00:00+01:00": "%2B", "at=2026-11-22T12:00:00.5%2001:00": "%2B",
		"at=-1": "from 0 to", "at=8640000000000001": "from 0 to", "at=1e99": "from 0 to",
		"at=1&at=1": "twice", "at[$lt]=1": "not a parameter", "at[]=1&x=2": "x is not a parameter", "room=a": "room is not a parameter", "$limit=1": "$limit is not a parameter",
		"$select=nonsense": "not a field",
	} {
		if q, err := ParseSession(text); err == nil || problem.Of(err).Status != 400 || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %+v, %v; want a 400 that says %q", text, q, err, says)
		}
	}
}
