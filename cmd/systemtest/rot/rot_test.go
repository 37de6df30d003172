package rot

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"chatsessions/cmd/systemtest/rig"
)

// short is how many corruptions an ordinary test run has.
const short = 16

// TestNoCorruptionIsSilent corrupts copies of a log. ROT is how many, and ROT_SEED which.
//
// Every corruption at or before the durable position is named by every command and by the
// service, with file and position. What is after it may be left out, and then the log ends
// before it. All else is read as it was written, and no file is changed.
func TestNoCorruptionIsSilent(t *testing.T) {
	count, seed := number(t, "ROT", short), number(t, "ROT_SEED", 1)
	w := write(t)
	began := time.Now()
	t.Run("all", func(t *testing.T) {
		for i := range count {
			rng := rand.New(rand.NewPCG(uint64(seed), uint64(i))) //nolint:gosec // to be repeated
			c := corruptions[i%len(corruptions)]
			t.Run(fmt.Sprintf("%d %s", i, c.name), func(t *testing.T) {
				t.Parallel()
				corrupt(t, w, rng, c).check(rng)
			})
		}
	})
	t.Logf("%d corruptions with seed %d took %s", count, seed, time.Since(began).Round(time.Second))
}

func number(t *testing.T, variable string, otherwise int) int {
	t.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv(variable), strconv.Itoa(otherwise)))
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

// A rotten is a corrupted copy of a log.
type rotten struct {
	*testing.T
	log     *written
	dir     string // data directory
	serve   bool   // the service will be started on it
	clean   bool   // the last run ended in good order
	durable int    // position

	file     int // index of the block
	content  []byte
	swapped  bool
	affected []int // positions
	damaged  bool  // one of them was known to be durable
	end      int   // position at which the log ends
}

// corrupt corrupts a copy of a log.
func corrupt(t *testing.T, w *written, rng *rand.Rand, c corruption) *rotten {
	r := &rotten{T: t, log: w, dir: filepath.Join(t.TempDir(), "data"), serve: rng.IntN(3) == 0, swapped: c.name == "swapped records"}
	r.file, r.content = c.apply(rng, w.blocks)
	r.affected = w.blocks[r.file].affected(r.content)
	switch rng.IntN(4) {
	case 0, 1:
		r.durable = w.last()
		r.clean = rng.IntN(3) == 0
	case 2: // anywhere
		r.durable = w.wholeUpTo(1 + rng.IntN(w.last()))
	case 3: // a power cut: just before it, or up to ten events earlier
		r.durable = w.wholeUpTo(max(0, r.affected[0]-1-rng.IntN(10)))
	}
	if r.durable == 0 {
		r.durable = w.last()
	}
	r.damaged = r.affected[0] <= r.durable
	r.end = w.last()
	if !r.damaged {
		r.end = w.wholeUpTo(r.affected[0] - 1)
	}
	from, lay := w.crashed, link
	if r.clean {
		from = w.clean
	}
	if r.serve {
		lay = clone
	}
	lay(t, from, r.dir)
	replace(t, r.path(), r.content)
	noteDurable(t, r.dir, r.durable)
	if !r.clean {
		w.noteIntents(t, r.dir, r.durable)
	}
	return r
}

// path is the path of the corrupted file.
func (r *rotten) path() string { return filepath.Join(blockDir(r.dir), r.log.blocks[r.file].name) }

// check runs the commands, and the service at the end.
func (r *rotten) check(rng *rand.Rand) {
	before := hashes(r.T, r.dir)
	named := r.verify()
	for _, command := range []struct {
		often int
		run   func()
	}{
		{2, func() { r.replay(named) }},
		{3, func() { r.history(rng, named) }},
		{3, r.backup},
		{3, r.salvage},
	} {
		if rng.IntN(command.often) == 0 {
			command.run()
		}
	}
	if after := hashes(r.T, r.dir); !maps.Equal(before, after) {
		r.Errorf("files were changed: before %v, after %v", before, after)
	}
	if r.serve {
		r.start(before)
	}
	if r.Failed() {
		r.Logf("durable is %d of %d, clean %t; affected are %d to %d of %s; the log ends at %d",
			r.durable, r.log.last(), r.clean, r.affected[0], r.affected[len(r.affected)-1], r.path(), r.end)
	}
}

// command runs a command on the log.
func (r *rotten) command(args ...string) (status int, stdout, stderr string) {
	r.Helper()
	return rig.Command(r.T, nil, append(args, "--data-dir", r.dir)...)
}

// status checks the exit status: 0 only if there is no damage.
func (r *rotten) status(command string, status int, stderr string) {
	r.Helper()
	want := rig.ExitDone
	if r.damaged {
		want = rig.ExitFailed
	}
	if status != want {
		r.Errorf("%s: exit status %d, want %d: %s", command, status, want, stderr)
	}
}

// A place is where a damage was reported.
type place struct {
	path     string
	offset   int
	from, to int // positions; to is 0 for all after from
}

var placePattern = regexp.MustCompile(`the log is damaged: (.+), byte (\d+), (?:nothing between )?positions? (\d+)(?: to (\d+)| and (\d+|all after it))?: `)

// places finds the damages in what a command has printed.
func places(printed string) (all []place) {
	for _, m := range placePattern.FindAllStringSubmatch(printed, -1) {
		p := place{path: m[1]}
		p.offset, _ = strconv.Atoi(m[2])
		p.from, _ = strconv.Atoi(m[3])
		p.to = p.from
		switch {
		case m[4] != "":
			p.to, _ = strconv.Atoi(m[4])
		case m[5] == "all after it":
			p.to = 0
		case m[5] != "": // nothing between
			p.from, _ = strconv.Atoi(m[5])
		}
		all = append(all, p)
	}
	return all
}

func isNamed(named []place, position int) bool {
	return slices.ContainsFunc(named, func(p place) bool { return p.from <= position && (position <= p.to || p.to == 0) })
}

// names checks that a text names the file and the position of the damage.
func (r *rotten) names(what, printed string) []place {
	r.Helper()
	named := places(printed)
	if !r.damaged {
		if len(named) > 0 {
			r.Errorf("%s: named are %v, and nothing durable is damaged", what, named)
		}
		return nil
	}
	if len(named) == 0 {
		r.Errorf("%s does not name the damage: %s", what, printed)
		return nil
	}
	// Where the end of a file is lost, the place is where the next one begins.
	paths := []string{r.path()}
	if len(r.content) < len(r.log.blocks[r.file].content) && r.file+1 < len(r.log.blocks) {
		paths = append(paths, filepath.Join(blockDir(r.dir), r.log.blocks[r.file+1].name))
	} else if r.content == nil { // the newest file is lost
		paths = append(paths, filepath.Join(blockDir(r.dir), r.log.blocks[r.file-1].name))
	}
	if p := named[0]; !slices.Contains(paths, p.path) || p.from != r.affected[0] {
		r.Errorf("%s: named is %+v first", what, p)
	}
	if p, b := named[0], r.log.blocks[r.file]; len(r.content) == len(b.content) && p.offset != b.records[r.affected[0]-b.records[0].position].start {
		r.Errorf("%s: named is byte %d", what, p.offset)
	}
	return named
}

// verify returns the damages that verify has named.
func (r *rotten) verify() []place {
	status, stdout, stderr := r.command("verify", "--output", "json")
	r.status("verify", status, stderr)
	var damages strings.Builder
	var line struct {
		Kind, Detail                        string
		Position, Events, Sessions, Defects int
	}
	for text := range strings.Lines(stdout) {
		line.Kind = ""
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			r.Fatalf("%s: %v", text, err)
		}
		if line.Kind == "damaged" {
			damages.WriteString(line.Detail + "\n")
		}
	}
	named := r.names("verify", damages.String())
	if line.Defects == 0 && r.damaged || line.Position > r.log.last() || !r.damaged && line.Position != r.end {
		r.Errorf("verify: %+v", line)
	}
	if line.Position < r.durable && !isNamed(named, r.durable) {
		r.Errorf("verify ends at %d, and the rest is not named: %+v", line.Position, named)
	}
	// The events that it has read and the positions that it has named are all of the log.
	events := 0
	for position := range line.Position {
		if !isNamed(named, position+1) {
			events++
		}
	}
	if events > line.Events {
		r.Errorf("verify: %d events and %+v are less than %d positions", line.Events, named, line.Position)
	}
	for _, position := range r.affected {
		if r.damaged && !r.swapped && !isNamed(named, position) {
			r.Errorf("verify does not name position %d: %+v", position, named)
		}
	}
	return named
}

// lines checks what a command has read of the log. It returns the positions.
func (r *rotten) lines(what, stdout string) map[int]bool {
	position, found := 0, map[int]bool{}
	for text := range strings.Lines(stdout) {
		if strings.Contains(text, `"unreadable":"there `) { // it names a gap
			continue
		}
		at := slices.Index(r.log.lines[position:], strings.TrimSuffix(text, "\n"))
		if at < 0 {
			r.Errorf("%s: after position %d: %.200s", what, position, text)
			break
		}
		position += at + 1
		found[position] = true
	}
	return found
}

// whole checks that everything up to the end of the log was found or is missing for a reason.
func (r *rotten) whole(what string, found map[int]bool, isMissing func(position int) bool) {
	for position := 1; position <= r.log.last(); position++ {
		isAffected := slices.Contains(r.affected, position)
		if r.Failed() {
			return // the first one is enough
		}
		switch {
		case position > r.end && found[position]:
			r.Errorf("%s: position %d is after the end of the log", what, position)
		case position > r.end:
		case !found[position] && !isMissing(position):
			r.Errorf("%s: position %d is missing, and is not named", what, position)
		case found[position] && isAffected && !r.swapped:
			r.Errorf("%s: position %d is damaged, and was read", what, position)
		case !found[position] && !isAffected:
			r.Errorf("%s: position %d is sound, and was not read", what, position)
		}
	}
}

func (r *rotten) replay(named []place) {
	status, stdout, stderr := r.command("replay", "--output", "ndjson")
	r.status("replay", status, stderr)
	r.names("replay", stderr)
	r.whole("replay", r.lines("replay", stdout), func(position int) bool { return isNamed(named, position) })
}

// history reads a session, as a rule one that is affected.
func (r *rotten) history(rng *rand.Rand, named []place) {
	position := 1 + rng.IntN(r.log.last())
	if rng.IntN(3) > 0 {
		position = r.affected[rng.IntN(len(r.affected))]
	}
	subject := r.log.events[position-1].Subject
	id := strings.TrimPrefix(subject, "chat-sessions.")
	status, stdout, stderr := r.command("history", id, "--output", "json")
	r.names("history", stderr)
	var events []struct{ Position int }
	if stdout != "" {
		if err := json.Unmarshal([]byte(stdout), &events); err != nil {
			r.Fatalf("history: %s: %v", stdout, err)
		}
	}
	var got, want []int
	for _, e := range events {
		got = append(got, e.Position)
	}
	for i, e := range r.log.events {
		if p := i + 1; e.Subject == subject && p <= r.end && !isNamed(named, p) {
			want = append(want, p)
		}
	}
	if len(want) == 0 { // there is no such session
		if status != rig.ExitFailed {
			r.Errorf("history of a session that is lost: exit status %d: %s", status, stderr)
		}
		return
	}
	r.status("history", status, stderr)
	if !slices.Equal(got, want) {
		r.Errorf("history has positions %v, want %v", got, want)
	}
}

func (r *rotten) backup() {
	file := filepath.Join(r.TempDir(), "log.backup")
	status, stdout, stderr := r.command("backup", file)
	r.status("backup", status, stderr)
	r.names("backup", stderr)
	if r.damaged {
		if left, err := os.ReadDir(filepath.Dir(file)); err != nil || len(left) > 0 {
			r.Errorf("backup has left %v, %v", left, err)
		}
		return
	}
	if want := fmt.Sprintf("Saved %d events, positions 1 to %[1]d", r.end); !strings.HasPrefix(stdout, want) {
		r.Errorf("backup: %s, want %s", stdout, want)
	}
	to := filepath.Join(r.TempDir(), "restored")
	if status, stdout, stderr := rig.Command(r.T, nil, "restore", "--data-dir", to, file); status != rig.ExitDone {
		r.Errorf("restore: exit status %d, %s%s", status, stdout, stderr)
		return
	}
	r.whole("restored", r.lines("restored", strings.Join(replayed(r.T, to), "\n")), func(int) bool { return false })
}

var lostPattern = regexp.MustCompile(`(?m)^Lost: positions? (\d+)(?: to (\d+))?\.$`)

func (r *rotten) salvage() {
	to := filepath.Join(r.TempDir(), "new")
	status, stdout, stderr := r.command("salvage", "--to", to)
	r.names("salvage", stdout)
	lost := map[int]bool{}
	for _, m := range lostPattern.FindAllStringSubmatch(stdout, -1) {
		from, _ := strconv.Atoi(m[1])
		upTo, _ := strconv.Atoi(cmp.Or(m[2], m[1]))
		for position := from; position <= upTo; position++ {
			lost[position] = true
		}
	}
	want := rig.ExitDone
	if len(lost) > 0 {
		want = rig.ExitFailed
	}
	if status != want {
		r.Errorf("salvage: exit status %d, %s%s", status, stdout, stderr)
		return
	}
	status, stdout, stderr = rig.Command(r.T, nil, "replay", "--output", "ndjson", "--data-dir", to)
	if status == rig.ExitDone && len(lost) > 0 {
		r.Errorf("replay of the salvaged log: exit status %d, %s", status, stderr)
	}
	defer func() {
		if r.Failed() {
			r.Logf("replay of the salvaged log: exit status %d, %d bytes, %s", status, len(stdout), stderr)
		}
	}()
	found := r.lines("salvaged", stdout)
	for position := 1; position <= r.log.last(); position++ {
		isAffected := slices.Contains(r.affected, position)
		if r.Failed() {
			return // the first one is enough
		}
		switch {
		case found[position] == lost[position] && (position <= r.end || found[position]):
			r.Errorf("salvage: position %d: copied %t, lost %t", position, found[position], lost[position])
		case !found[position] && !isAffected && position <= r.end:
			r.Errorf("salvage: position %d is sound, and was not copied", position)
		case found[position] && isAffected && !r.swapped:
			r.Errorf("salvage: position %d is damaged, and was copied", position)
		}
	}
}
