package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strings"
	"testing"
)

var stop = regexp.MustCompile("(?m)^[0-9]+\\. \\[`([^`]+)`\\]\\([^)]*\\) `([^`]+)`")

// TestEveryStopOfTheTourExists looks for the file and the function of every stop.
func TestEveryStopOfTheTourExists(t *testing.T) {
	paths := strings.Split(read(t, "docs/tour.md"), "\n## ")
	for title, want := range map[string]int{"The path of a PATCH": 10, "The path of an event to a reader": 6, "The path of a GET and a list": 9} {
		found := 0
		for _, path := range paths {
			if strings.HasPrefix(path, title) {
				for _, match := range stop.FindAllStringSubmatch(path, -1) {
					found++
					if names := functions(t, match[1]); !names[match[2]] {
						t.Errorf("%s has no function %s", match[1], match[2])
					}
				}
			}
		}
		if found != want {
			t.Errorf("%q has %d stops, want %d", title, found, want)
		}
	}
}

// functions returns the functions of a file; a method is Type.name.
func functions(t *testing.T, file string) map[string]bool {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, read(t, file), 0)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, declaration := range parsed.Decls {
		f, ok := declaration.(*ast.FuncDecl)
		if !ok {
			continue
		}
		name := f.Name.Name
		if f.Recv != nil {
			receiver := f.Recv.List[0].Type
			if pointer, ok := receiver.(*ast.StarExpr); ok {
				receiver = pointer.X
			}
			if typ, ok := receiver.(*ast.Ident); ok {
				name = typ.Name + "." + name
			}
		}
		names[name] = true
	}
	return names
}
