package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// A smallDisk is a tmpfs of its own, small enough to be filled.
type smallDisk struct{ dir string }

// mountSmallDisk needs the right to mount. A test that cannot fill a disk has not
// tested that, so it fails.
func mountSmallDisk(t *testing.T, size string) smallDisk {
	t.Helper()
	d := smallDisk{t.TempDir()}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size+",mode=700", "chatsessions-chaos", d.dir).CombinedOutput(); err != nil {
		t.Fatalf("the chaos test fills a disk, and for that mounts a small tmpfs, which only root may do on Linux: %v: %s", err, out)
	}
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
