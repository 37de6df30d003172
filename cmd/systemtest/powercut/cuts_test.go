//go:build powercut

package powercut

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"chatsessions/cmd/systemtest/rig"
)

// Powercuts are one combination of what the power is cut on, and how often.
type powercuts struct {
	t        *testing.T
	scenario string
	several  bool // events in each write
	control  bool // nothing is synced, and writes must be lost
	cuts     int
	program  program
	random   *rand.Rand
	pool     *pool
	disk     *disk // in use
	diary    *diary

	sum     finding
	refused int64 // writes, with a 503
}

var powercutScenarios = []struct {
	name string
	run  func(*powercuts)
}{
	{"just created", (*powercuts).justCreated},
	{"in use", (*powercuts).inUse},
	{"many blocks", (*powercuts).manyBlocks},
}

// TestPowerCuts cuts the power under the service while it writes, POWERCUTS times
// (50), and looks for every answer in what is left. The same without any sync is
// the control: it has to lose answered writes, or the test could not see a loss.
// POWERCUT_SEED chooses the moments; the load is not the same another time.
func TestPowerCuts(t *testing.T) {
	needLoopDevices(t)
	cuts, seed := envNumber(t, "POWERCUTS", 50), envNumber(t, "POWERCUT_SEED", uint64(time.Now().UnixNano()))
	t.Logf("%d power cuts, POWERCUT_SEED=%d", cuts, seed)
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test that can be repeated
	deployed := buildProgram(t, "")
	unsafe := buildProgram(t, "faults", "CHATSESSIONS_FAULT_SYNC=none")

	table := newPowercutTable()
	cells := 2 * len(powercutScenarios)
	for i := range cells {
		p := powercuts{scenario: powercutScenarios[i/2].name, several: i%2 == 1, random: random, program: deployed}
		p.cuts = int(cuts) / cells
		if i < int(cuts)%cells {
			p.cuts++
		}
		c := p
		c.program, c.control, c.cuts = unsafe, true, 2
		for _, each := range []*powercuts{&c, &p} { // the control first: without it, the rest says nothing
			t.Run(each.String(), func(t *testing.T) { each.run(t, powercutScenarios[i/2].run) })
		}
		table.add(p.scenario, p.events(), p.sum, c.sum)
	}
	t.Logf("answered writes are counted at each cut that they had to outlive\n%s", table)
}

// TestPowerCutsTellADiskThatIsNotFlushed runs the service on a file system that is
// mounted not to flush its disk: answered writes are lost, or the test above could
// not see that a flush is missing.
func TestPowerCutsTellADiskThatIsNotFlushed(t *testing.T) {
	needLoopDevices(t)
	p := newPool(t)
	d := p.newDisk("nobarrier")
	service := buildProgram(t, "")
	sent := &diary{}
	s := service.on(t, filepath.Join(d.dir, "data"))
	s.Start()
	l := startLoad(t, s, sent, false, false)
	l.until("100 answers", func() bool { return sent.answers() >= 100 })
	before := sent.now()
	left := d.cut(true)
	l.stop()
	left.open(d)
	f, _, _, problems := lookFor(service.on(t, filepath.Join(left.dir, "data")), before)
	t.Logf("%d of %d answered writes are lost; %.200q", f.lost, f.answered, problems)
	if f.lost == 0 {
		t.Error("nothing is lost on a disk that is not flushed")
	}
}

func (p *powercuts) events() string {
	if p.several {
		return "several"
	}
	return "one"
}

func (p *powercuts) String() string {
	name := p.scenario + ", writes with events: " + p.events()
	if p.control {
		name += ", control"
	}
	return name
}

// envNumber is a number that an environment variable gives.
func envNumber(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	given := os.Getenv(name)
	if given == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(given, 10, 63)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

func (p *powercuts) run(t *testing.T, scenario func(*powercuts)) {
	p.t, p.pool, p.diary = t, newPool(t), &diary{}
	p.disk = p.pool.newDisk()
	scenario(p)
	if p.control && p.sum.lost == 0 {
		t.Error("the control has lost nothing: this test cannot see a loss")
	}
	if p.control && p.sum.unusable == p.cuts {
		t.Error("the control's service has never come back: what it had lost was not looked for")
	}
	if !p.control && p.sum.answered == 0 && p.cuts > 0 {
		t.Error("nothing was at stake")
	}
	if p.refused > 0 {
		t.Logf("%d writes were answered 503", p.refused)
	}
}

// justCreated cuts the power in the first moments of data directories: right after
// the first answer, or up to a second and a half later.
func (p *powercuts) justCreated() {
	for i := range p.cuts {
		p.diary = &diary{}
		dir := fmt.Sprintf("data-%d", i)
		s := p.program.on(p.t, filepath.Join(p.disk.dir, dir))
		s.Start()
		l := p.startLoad(s, i, false)
		l.until("an answer", func() bool { return p.diary.answers() > 0 })
		after := []time.Duration{0, p.upTo(300 * time.Millisecond), p.upTo(1500 * time.Millisecond)}[(i/2+1)%3]
		<-time.After(after)
		left, writes := p.cut(l, i%2 == 0)
		s.Kill()
		_, survivor := p.examine(left, dir, writes, i%2 == 0, fmt.Sprintf("%s after the first answer", after.Round(time.Millisecond)))
		p.stopInOrder(survivor)
		left.unmount()
	}
}

// inUse cuts the power on a data directory with content, of a service that was
// stopped and started again. From then on it goes on with what the cut has left: one
// life after the other, begun after a power cut or after an orderly stop in turns.
// Sometimes the power fails again while the service starts.
func (p *powercuts) inUse() {
	const dir = "data"
	s := p.program.on(p.t, filepath.Join(p.disk.dir, dir))
	s.Start()
	l := startLoad(p.t, s, p.diary, p.several, false)
	<-time.After(time.Second)
	l.stop()
	p.stopInOrder(s)
	if p.control { // what was there before has come to the disk in the meantime
		p.pool.run("sync", "--file-system", p.disk.dir)
	}
	for i := range p.cuts {
		s.Start()
		l := p.startLoad(s, i, false)
		moment := p.someMoment(l, 2*time.Second)
		losesCache := i%2 == 0
		left, writes := p.cut(l, losesCache)
		s.Kill()
		if p.control {
			p.examine(left, dir, writes, losesCache, moment)
			continue
		}
		if i%3 == 1 {
			left.open(p.disk)
			again := p.upTo(400 * time.Millisecond)
			moment += fmt.Sprintf(", and again %s into the next start", again.Round(time.Millisecond))
			next := p.program.startAndCut(left, dir, again, losesCache)
			p.disk.unmount()
			p.disk, left = left, next
		}
		there, survivor := p.examine(left, dir, writes, losesCache, moment)
		p.disk.unmount()
		p.disk, s = left, survivor
		p.diary.goOnFrom(there)
		if i%4 < 2 {
			p.stopInOrder(s)
		} else {
			s.Kill()
		}
	}
}

// manyBlocks cuts the power on a log of several block files, in every second cut
// when the server has just begun another one.
func (p *powercuts) manyBlocks() {
	const dir = "data"
	s := p.program.on(p.t, filepath.Join(p.disk.dir, dir))
	s.Start()
	data := filepath.Join(p.disk.dir, dir)
	l := startLoad(p.t, s, p.diary, p.several, true)
	l.until("three block files", func() bool { return newestBlock(data) >= 3 })
	l.stop()
	for i := range p.cuts {
		l := p.startLoad(s, i, true)
		moment := ""
		if i%4 < 2 {
			full := newestBlock(data)
			l.until("another block file", func() bool { return newestBlock(data) > full })
			after := p.upTo(5 * time.Millisecond)
			<-time.After(after)
			moment = fmt.Sprintf("%s after block %d", after.Round(100*time.Microsecond), full+1)
		} else {
			moment = p.someMoment(l, 500*time.Millisecond)
		}
		left, writes := p.cut(l, i%2 == 0)
		_, survivor := p.examine(left, dir, writes, i%2 == 0, moment)
		p.stopInOrder(survivor)
		left.unmount()
	}
}

// startLoad starts the load for a cut. In every second pair of cuts, writes of several
// events are likely to be torn.
func (p *powercuts) startLoad(s *rig.Service, cut int, large bool) *load {
	p.t.Helper()
	l := startLoad(p.t, s, p.diary, p.several, large)
	if p.several && !p.control && cut%4 >= 2 {
		l.speedUp = slowDown(p.t, s)
	}
	return l
}

// someMoment returns some time after the load got its first answers, and says when.
func (p *powercuts) someMoment(l *load, within time.Duration) string {
	p.t.Helper()
	answers := p.diary.answers() + loadWriters
	l.until("answers", func() bool { return p.diary.answers() >= answers })
	after := p.upTo(within)
	<-time.After(after)
	return fmt.Sprintf("%s into the load", after.Round(time.Millisecond))
}

func (p *powercuts) upTo(d time.Duration) time.Duration {
	return time.Duration(p.random.Int64N(int64(d)))
}

// stopInOrder stops a service, unless it has ended.
func (p *powercuts) stopInOrder(s *rig.Service) {
	p.t.Helper()
	if status := s.Stop(); status != 0 {
		p.t.Fatalf("exit status %d", status)
	}
}

// cut cuts the power under load, and ends the load. It returns what is left, and the
// writes that may be there; those that were answered when it began have to be.
func (p *powercuts) cut(l *load, losesCache bool) (*disk, []write) {
	p.t.Helper()
	before := p.diary.now()
	left := p.disk.cut(losesCache)
	writes := p.diary.now()
	l.stop()
	p.refused += l.refused.Load()
	for i := range writes {
		if i < len(before) {
			writes[i] = before[i]
			continue
		}
		writes[i] = write{id: writes[i].id, events: writes[i].events}
	}
	return left, writes
}

// examine looks for the writes in what a power cut has left, and says how that went.
// It returns the writes that are there, and the service that runs on it.
func (p *powercuts) examine(left *disk, dir string, writes []write, lostCache bool, moment string) ([]write, *rig.Service) {
	p.t.Helper()
	began := time.Now()
	left.open(p.disk)
	data := filepath.Join(left.dir, dir)
	s := p.program.on(p.t, data)
	f, there, events, problems := lookFor(s, writes)
	p.sum.add(f)
	cache := "kept its cache"
	if lostCache {
		cache = "lost its cache"
	}
	p.t.Logf("cut %d of %d, %s, the disk %s: %d answered, %d found, %d lost; without an answer %d whole, %d not there, %d torn; %d completed; %d events, block %d; examined in %.1f s",
		p.sum.cuts, p.cuts, moment, cache, f.answered, f.found, f.lost, f.whole, f.absent, f.torn, f.completed, len(events), newestBlock(data), time.Since(began).Seconds())
	if p.control {
		s.Kill()
		return there, s
	}
	if bad := f.bad(); bad != "" {
		p.t.Fatalf("%s:\n%s", bad, strings.Join(problems, "\n"))
	}
	checkVerifies(p.t, s, events)
	return there, s
}
