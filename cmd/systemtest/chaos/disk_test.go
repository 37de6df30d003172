package chaos

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// A smallDisk is a tmpfs of its own, small enough to be filled.
type smallDisk struct {
	dir     string
	mounted bool
}

// kinds are the faults that need a disk to fill.
func (d smallDisk) kinds(full ...kind) []kind {
	if d.mounted {
		return full
	}
	return nil
}

// mountSmallDisk needs the right to mount, which the users of `make test` need not
// have: there, the disk is not filled, and that is said. `make chaos` insists.
func mountSmallDisk(t *testing.T, size string) smallDisk {
	t.Helper()
	d := smallDisk{dir: t.TempDir()}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size+",mode=700", "chatsessions-chaos", d.dir).CombinedOutput(); err != nil {
		if *chaosDuration > shortChaos {
			t.Fatalf("to fill a disk, a small tmpfs is mounted, which only root may do on Linux: %v: %s", err, out)
		}
		t.Logf("NOT INJECTED: full disks; mounting a tmpfs is not allowed here: %v: %s", err, out)
		return d
	}
	d.mounted = true
	t.Cleanup(func() {
		if out, err := exec.Command("umount", d.dir).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v: %s", d.dir, err, out)
		}
	})
	return d
}

func (d smallDisk) ballast() string { return filepath.Join(d.dir, "ballast") }

// fill leaves so many bytes free on the disk.
func (d smallDisk) fill(leave int64) error {
	f, err := os.Create(d.ballast())
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	var size int64
	for {
		n, err := f.Write(block)
		size += int64(n)
		if errors.Is(err, syscall.ENOSPC) {
			return f.Truncate(max(0, size-leave))
		}
		if err != nil {
			return err
		}
	}
}

// free gives the space back.
func (d smallDisk) free() error { return os.Remove(d.ballast()) }
