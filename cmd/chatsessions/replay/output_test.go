package replay

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode"

	"chatsessions/domain"
)

func TestWhatAMessageSaysDoesNotDriveTheTerminal(t *testing.T) {
	var out bytes.Buffer
	d := Defects{Out: &out}
	d.Count([]domain.Entry{{Err: errors.New("event 7 of session \x1b]0;x\a\u009b2J\r\n\u202e: ce-type is \"a\"")}})
	if said := strings.TrimSuffix(out.String(), "\n"); strings.ContainsFunc(said, func(c rune) bool { return !unicode.IsPrint(c) }) || !strings.Contains(said, `]0;x��2J���: ce-type is "a"`) {
		t.Errorf("%q", said)
	}
}

func TestOneDefectIsNotSeveral(t *testing.T) {
	d := Defects{Out: &bytes.Buffer{}}
	for _, want := range []string{"a defect was found", "2 defects were found"} {
		d.Count([]domain.Entry{{Err: errors.New("x")}})
		if err := d.Err(); !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// TestDifferentChangesAreToldDifferently: the end of each text is visible.
func TestDifferentChangesAreToldDifferently(t *testing.T) {
	for changes, want := range map[string]string{
		`{"participants":["dr.","bob"]}`:    `participants [dr., bob]`,
		`{"participants":["dr. bob"]}`:      `participants [dr. bob]`,
		`{"participants":["dr., bob"]}`:     `participants ["dr., bob"]`,
		`{"participants":["a] x","[b",""]}`: `participants ["a] x", "[b", ""]`,
		`{"participants":[" a"]}`:           `participants [" a"]`,
	} {
		if got := describe(json.RawMessage(changes)); got != want {
			t.Errorf("%s is described as %s, want %s", changes, got, want)
		}
	}
}
