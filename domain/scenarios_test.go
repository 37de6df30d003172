package domain_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"chatsessions/domain"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the scenarios with what the domain does now")

// TestScenarios replays testdata/*.txt. A scenario is a paragraph: a line
// "# what it shows", then lines of commands, each followed by what came of it:
//
//	<time> <account>[:<role>] create|change|change@<version> <JSON of the values>
//	  <event> <changes>
//	  no events
//	  <kind of error>: <what it says>
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scenarios", err)
	}
	for _, file := range files {
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got := replay(t, string(want))
		if *rewrite {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		wantLines, gotLines := strings.Split(string(want), "\n"), strings.Split(got, "\n")
		for i := range max(len(wantLines), len(gotLines)) {
			w, g := lineAt(wantLines, i), lineAt(gotLines, i)
			if w != g {
				t.Errorf("%s:%d:\n got %s\nwant %s", file, i+1, g, w)
				break
			}
		}
	}
}

func lineAt(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(end)"
}

// replay runs the commands of a scenario file and returns the file with what came of
// them now.
func replay(t *testing.T, text string) string {
	var out strings.Builder
	var session domain.Session
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "  "):
			continue // what came of it the last time
		case line == "":
			session = domain.Session{}
			fmt.Fprintln(&out)
		case strings.HasPrefix(line, "#"):
			fmt.Fprintln(&out, line)
		default:
			fmt.Fprintln(&out, line)
			events, err := domain.Decide(session, parseCommand(t, line))
			out.WriteString(outcome(events, err))
			for _, e := range events {
				folded, err := domain.Apply(session, e)
				if err != nil || !reflect.DeepEqual(folded, e.Session) {
					t.Errorf("%s\n changes of %s fold to %+v (%v)\nbut the event says %+v", line, e.Type, folded, err, e.Session)
				}
				session = e.Session
			}
		}
	}
	return out.String()
}

func outcome(events []domain.Event, err error) string {
	var invalid *domain.InvalidError
	var forbidden *domain.ForbiddenError
	var illegal *domain.IllegalTransitionError
	var stale *domain.PreconditionError
	fields := func(kind string, fields []domain.FieldError) string {
		var b strings.Builder
		for _, f := range fields {
			fmt.Fprintf(&b, "  %s %s: %s\n", kind, f.Pointer, f.Detail)
		}
		return b.String()
	}
	switch {
	case errors.As(err, &invalid):
		return fields("invalid", invalid.Fields)
	case errors.As(err, &forbidden):
		return fields("forbidden", forbidden.Fields)
	case errors.As(err, &illegal):
		return fmt.Sprintf("  illegal: %v; allowed %v\n", illegal, illegal.Session.State.Allowed())
	case errors.As(err, &stale):
		return fmt.Sprintf("  stale: %v\n", stale)
	case err != nil:
		return fmt.Sprintf("  error: %v\n", err)
	case len(events) == 0:
		return "  no events\n"
	}
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "  %s %s\n", strings.TrimPrefix(string(e.Type), "chat-session."), e.Changes)
	}
	return b.String()
}

// parseCommand reads a command line of a scenario. The JSON is the values of the
// command; what JSON types allow beyond that is the HTTP interface's to test.
func parseCommand(t *testing.T, line string) domain.Command {
	t.Helper()
	parts := strings.SplitN(line, " ", 4)
	if len(parts) != 4 {
		t.Fatalf("not a command: %s", line)
	}
	var now int64
	if _, err := fmt.Sscan(parts[0], &now); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	account, role, hasRole := strings.Cut(parts[1], ":")
	by := domain.Caller{Account: account, Role: domain.RoleAccount}
	if hasRole {
		by.Role = domain.Role(role)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(parts[3]), &members); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	values := domain.Values{
		Type:         member[string](t, members, "type"),
		Room:         member[string](t, members, "room"),
		Participants: member[[]string](t, members, "participants"),
		CreatedAt:    member[int64](t, members, "createdAt"),
		CreatedBy:    member[string](t, members, "createdBy"),
	}
	change := domain.Change{By: by, Now: now}
	for _, tr := range domain.Transitions() {
		values.Stamps[tr] = domain.StampValues{
			At: member[int64](t, members, tr.AtField()),
			By: member[string](t, members, tr.ByField()),
		}
		if tr.ReasonField() != "" {
			values.Stamps[tr].Reason = member[string](t, members, tr.ReasonField())
		}
		switch asked := string(members[tr.String()]); asked {
		case "":
		case "true", "false":
			change.Directives[tr] = domain.Directive{Asked: asked == "true", Refused: asked == "false"}
		default:
			change.Directives[tr] = domain.Directive{Asked: true, Reason: *member[string](t, members, tr.String())}
		}
	}
	change.Values = values
	verb, version, conditional := strings.Cut(parts[2], "@")
	if conditional {
		change.Condition = func(v uint64) bool { return fmt.Sprint(v) == version }
	}
	switch verb {
	case "create":
		return domain.Create{ID: "s1", By: by, Now: now, Values: values}
	case "change":
		return change
	}
	t.Fatalf("%s: the verbs are create and change", line)
	return nil
}

// member decodes one member; null is the zero value, as the parser of requests
// has it for what can be cleared.
func member[T any](t *testing.T, members map[string]json.RawMessage, name string) *T {
	t.Helper()
	raw, ok := members[name]
	if !ok {
		return nil
	}
	value := new(T)
	if err := json.Unmarshal(raw, value); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return value
}
