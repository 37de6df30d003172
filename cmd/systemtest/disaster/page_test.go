package disaster

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

var writePage = flag.Bool("disaster.write", false, "write what the commands of docs/how-to/disaster.md print into it, where that has changed")

const pagePath = "../../../docs/how-to/disaster.md"

// A page is the document, whose blocks of commands are run in their order.
type page struct {
	t       *testing.T
	srv     string            // what is /srv on the page
	replace map[string]string // what else stands for a thing of the test
	env     []string
	written strings.Builder
	rest    string
	blocks  int
}

func openPage(t *testing.T) *page {
	t.Helper()
	content, err := os.ReadFile(pagePath)
	if err != nil {
		t.Fatal(err)
	}
	return &page{t: t, srv: t.TempDir(), replace: map[string]string{}, rest: string(content)}
}

// run runs the next block, which has to be below a heading.
func (p *page) run(heading string) {
	p.t.Helper()
	before, block, found := strings.Cut(p.rest, "```console\n")
	if !found {
		p.t.Fatal("the page has no more commands")
	}
	p.written.WriteString(before + "```console\n")
	if shown := p.written.String(); !strings.HasPrefix(shown[strings.LastIndex(shown, "\n## ")+1:], "## "+heading+"\n") {
		p.t.Fatalf("block %d is not below %q", p.blocks, heading)
	}
	p.blocks++
	block, p.rest, _ = strings.Cut(block, "```\n")
	for _, part := range strings.Split("\n"+block, "\n$ ")[1:] {
		line, said, _ := strings.Cut(part, "\n")
		if said != "" && !strings.HasSuffix(said, "\n") {
			said += "\n"
		}
		printed := p.execute(line)
		if anyTime(said) != anyTime(printed) {
			if !*writePage {
				p.t.Errorf("%s prints\n%s\nand the page says\n%s\n(-disaster.write writes it)", line, printed, said)
			}
			said = printed
		}
		p.written.WriteString("$ " + line + "\n" + said)
	}
	p.written.WriteString("```\n")
}

// execute runs a command of the page, and returns what it prints.
func (p *page) execute(line string) string {
	p.t.Helper()
	line = strings.ReplaceAll(line, "/srv", p.srv)
	for there, here := range p.replace {
		line = strings.ReplaceAll(line, there, here)
	}
	cmd := exec.Command("bash", "-c", line)
	cmd.Env = append(append(os.Environ(), "GORACE=atexit_sleep_ms=0", "PATH="+filepath.Dir(rig.Binary)+":"+os.Getenv("PATH")), p.env...)
	cmd.Dir = p.srv
	out, _ := cmd.CombinedOutput() // what it prints says whether it failed
	return strings.NewReplacer(p.srv, "/srv", "\r", "").Replace(string(out))
}

// end checks that every block was run, and writes the page if that was asked for.
func (p *page) end() {
	p.t.Helper()
	if strings.Contains(p.rest, "```console\n") {
		p.t.Errorf("%d blocks were run, and there are more", p.blocks)
	}
	p.written.WriteString(p.rest)
	if *writePage && !p.t.Failed() {
		if err := os.WriteFile(pagePath, []byte(p.written.String()), 0o644); err != nil {
			p.t.Fatal(err)
		}
	}
}

// What is another each time.
var changing = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z|byte \d+`)

func anyTime(text string) string { return changing.ReplaceAllString(text, "<…>") }
