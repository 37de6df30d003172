package docs_test

import (
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	testCommand = regexp.MustCompile("(?:go test|…)[^`\n]*? -(run|bench) ('[^']*'|[^ `\n]+)[^`\n]*")
	testPackage = regexp.MustCompile(` \./([a-z0-9_/.-]+)`)
	testFunc    = regexp.MustCompile(`(?m)^func ((?:Test|Benchmark|Fuzz)\w*)\(`)
)

// TestEveryTestThatDocumentsNameExists looks for the tests of each command in a document. A
// command that begins with … is about the package of the command before it.
func TestEveryTestThatDocumentsNameExists(t *testing.T) {
	tests := map[string][]string{} // by folder
	for _, file := range files(t, "_test.go") {
		for _, f := range testFunc.FindAllStringSubmatch(read(t, file), -1) {
			tests[path.Dir(file)] = append(tests[path.Dir(file)], f[1])
		}
	}
	exists := func(where, pattern string) bool {
		below, all := strings.CutSuffix(where, "/...")
		for dir, names := range tests {
			if dir == path.Clean(where) || all && strings.HasPrefix(dir+"/", below+"/") {
				if slices.ContainsFunc(names, regexp.MustCompile(pattern).MatchString) {
					return true
				}
			}
		}
		return false
	}
	for _, page := range files(t, ".md") {
		where := ""
		for _, match := range testCommand.FindAllStringSubmatch(read(t, page), -1) {
			if named := testPackage.FindStringSubmatch(match[0]); named != nil {
				where = named[1]
			}
			if match[2] == "'^$'" {
				continue // benchmarks only
			}
			pattern := strings.ReplaceAll(strings.Trim(match[2], "'"), `\|`, "|")
			for alternative := range strings.SplitSeq(pattern, "|") {
				if !exists(where, alternative) {
					t.Errorf("%s: %s: %s is no test of %s", page, match[0], alternative, where)
				}
			}
		}
	}
}
