package rot

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"chatsessions/cmd/systemtest/rig"
)

// start starts the service on the log. It has to refuse a damage, and to set aside what
// follows the end of the log.
func (r *rotten) start(before map[string]string) {
	s := &rig.Service{T: r.T, Args: []string{"serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir", r.dir}}
	if err := s.Begin(); err != nil {
		r.Fatal(err)
	}
	defer s.CheckSound()
	ready := s.AwaitReady() == nil
	switch {
	case r.damaged:
		r.refused(s, ready, before)
	case !ready:
		r.Errorf("the service does not start: %s", s.Errors)
	default:
		if status := s.Stop(); status != rig.ExitDone {
			r.Errorf("the service: exit status %d", status)
		}
		r.setAside(s.Errors.String())
	}
}

// refused checks that the service has named the damage and changed nothing. After a shutdown
// in good order, it reads only the newest file before it starts; with a damage in another
// one, it ends.
func (r *rotten) refused(s *rig.Service, ready bool, before map[string]string) {
	served := r.clean && r.file < len(r.log.blocks)-1
	if ready && !served {
		r.Error("the service has started on a damaged log")
	}
	select {
	case <-s.Exited:
	case <-time.After(rig.Patience):
		r.Errorf("the service serves a damaged log: %s", s.Errors)
		s.Kill()
		return
	}
	if s.Cmd.ProcessState.ExitCode() == rig.ExitDone {
		r.Error("the service has ended with exit status 0")
	}
	r.names("serve", s.Errors.String())
	newest := r.log.blocks[len(r.log.blocks)-1].name
	for path, hash := range hashes(r.T, r.dir) {
		isLog := strings.HasPrefix(path, filepath.Join(r.dir, "log"))
		if served { // it has written to what a running service writes to
			isLog = filepath.Ext(path) == ".blk" && filepath.Base(path) != newest
		}
		if isLog && before[path] != hash {
			r.Errorf("the service has changed %s", path)
		}
	}
}

var asidePattern = regexp.MustCompile(`^(.*\.blk)\.from-(\d+)$`)

// setAside checks that the service has started with the log up to its end, and kept the rest.
func (r *rotten) setAside(logged string) {
	aside, err := filepath.Glob(filepath.Join(r.dir, "log", "set-aside", "*", "*"))
	if err != nil {
		r.Fatal(err)
	}
	kept := 0
	for _, path := range aside {
		content, err := os.ReadFile(path)
		if err != nil {
			r.Fatal(err)
		}
		kept += len(content)
		name, offset := filepath.Base(path), 0
		if m := asidePattern.FindStringSubmatch(name); m != nil {
			name = m[1]
			offset, _ = strconv.Atoi(m[2])
		}
		if was := r.was(name); offset > len(was) || string(was[offset:]) != string(content) {
			r.Errorf("%s is not what was in the file", path)
		}
	}
	if has := strings.Contains(logged, "set aside") && strings.Contains(logged, ".blk, byte "); has != (kept > 0) {
		r.Errorf("%d bytes were set aside; logged is %s", kept, logged)
	}
	// The records before the first affected one stay, and all else was kept.
	want, b := 0, r.log.blocks[r.file]
	if start := b.records[r.affected[0]-b.records[0].position].start; len(r.content) > start {
		want = len(r.content) - start
	}
	for _, later := range r.log.blocks[r.file+1:] {
		want += len(later.content)
	}
	if kept != want {
		r.Errorf("%d bytes were set aside, want %d", kept, want)
	}
	if status, stdout, stderr := r.command("verify"); status != rig.ExitDone {
		r.Errorf("verify after the start: exit status %d, %s%s", status, stdout, stderr)
	}
	ids := func(lines []string) (ids []string) {
		for _, line := range lines {
			var e struct{ ID string }
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				r.Fatal(err)
			}
			ids = append(ids, e.ID)
		}
		return ids
	}
	// A write that was cut in the middle was completed.
	end := r.end
	if next := r.affected[0] - 1; next > end {
		for end = next + 1; !r.log.ends(end); end++ {
		}
	}
	if got := replayed(r.T, r.dir); !slices.Equal(ids(got), ids(r.log.lines[:end])) {
		r.Errorf("after the start, the log has %d events, want %d", len(got), end)
	}
}

// was returns the content of a block file before the start.
func (r *rotten) was(name string) []byte {
	for i, b := range r.log.blocks {
		if b.name == name && i == r.file {
			return r.content
		} else if b.name == name {
			return b.content
		}
	}
	return nil
}
