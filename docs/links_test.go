// Package docs_test checks the documents: their links, their index, the tests that they name,
// and the tour.
package docs_test

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// root is the repository.
var root = os.DirFS("..")

// files returns the files of the repository whose names end in one of the suffixes.
func files(t *testing.T, suffixes ...string) []string {
	t.Helper()
	var found []string
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (name != "." && strings.HasPrefix(entry.Name(), ".") || entry.Name() == "node_modules" || entry.Name() == "chatsessions-data"):
			return fs.SkipDir
		case !entry.IsDir() && slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(name, s) }):
			found = append(found, name)
		}
		return nil
	})
	if err != nil || len(found) == 0 {
		t.Fatalf("no files %v: %v", suffixes, err)
	}
	return found
}

func read(t *testing.T, name string) string {
	t.Helper()
	content, err := fs.ReadFile(root, name)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

var (
	fence   = regexp.MustCompile("(?s)\n *```.*?\n *```")
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.*)$`)
	mention = regexp.MustCompile(`(?:docs|deploy)/[a-z0-9_/-]+\.md`)
	source  = regexp.MustCompile("`([a-z]+/[a-z0-9_/]+\\.go)`")
)

// anchors returns what links to the headings of a document end in, as GitHub derives it.
func anchors(markdown string) []string {
	var all []string
	for _, match := range heading.FindAllStringSubmatch(fence.ReplaceAllString(markdown, ""), -1) {
		all = append(all, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, match[1]))
	}
	return all
}

func TestEveryLinkLeadsSomewhere(t *testing.T) {
	for _, page := range files(t, ".md") {
		content := read(t, page)
		for _, match := range link.FindAllStringSubmatch(fence.ReplaceAllString(content, ""), -1) {
			target, anchor, _ := strings.Cut(match[1], "#")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			name := page
			if target != "" {
				name = path.Join(path.Dir(page), target)
			}
			if _, err := fs.Stat(root, name); err != nil {
				t.Errorf("%s: %s: %v", page, match[1], err)
			} else if anchor != "" && !slices.Contains(anchors(read(t, name)), anchor) {
				t.Errorf("%s: %s: there is no such heading", page, match[1])
			}
		}
	}
}

func TestEveryDocumentThatCodeNamesExists(t *testing.T) {
	for _, file := range files(t, ".go", ".conf", ".yml", ".json", ".js", "Makefile") {
		for _, name := range mention.FindAllString(read(t, file), -1) {
			if _, err := fs.Stat(root, name); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
}

func TestEverySourceThatDocumentsNameExists(t *testing.T) {
	for _, page := range files(t, ".md") {
		for _, match := range source.FindAllStringSubmatch(read(t, page), -1) {
			if _, err := fs.Stat(root, match[1]); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
}

func TestEveryPageIsListedUnderOneKind(t *testing.T) {
	listed := map[string]int{}
	for _, match := range link.FindAllStringSubmatch(read(t, "docs/README.md"), -1) {
		listed[path.Join("docs", match[1])]++
	}
	for _, page := range files(t, ".md") {
		if !strings.HasPrefix(page, "docs/") && !strings.HasPrefix(page, "deploy/") || page == "docs/README.md" {
			continue
		}
		want := 1
		if strings.HasPrefix(page, "docs/decisions/") && page != "docs/decisions/README.md" {
			want = 0 // listed in the index of decisions
			if !strings.Contains(read(t, "docs/decisions/README.md"), "("+path.Base(page)+")") {
				t.Errorf("docs/decisions/README.md does not list %s", page)
			}
		}
		if listed[page] != want {
			t.Errorf("docs/README.md lists %s %d times, want %d", page, listed[page], want)
		}
	}
}
