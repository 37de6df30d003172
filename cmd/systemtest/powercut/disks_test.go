//go:build powercut

package powercut

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The disks on which the power is cut. Each is a loop device with the ext4 on which
// a service has its data directory:
//
//	pool    XFS, holds the images of drives      /dev/loopA, its file is in memory
//	  drive   XFS, holds the images of disks     /dev/loopB, its file is in the pool
//	    disk    ext4, holds the data directory   /dev/loopC, its file is in the drive
//
// What is only in the page cache of the ext4 never reached the disk; every power cut
// loses it. What did reach the disk is in the page cache of the drive's file system,
// until the ext4 asks for a flush, which the loop driver carries out as an fsync of
// the disk's image: so that page cache is what a real disk has as its volatile cache.
// A clone of an image by XFS is all of its writes up to one moment and none from
// then on. There are two to choose from, and a real power cut lies between them:
//
//   - a clone of the disk's image within the drive has everything that the disk was
//     given, flushed or not;
//   - a clone of the drive's image within the pool has what was flushed, and what the
//     kernel has written by itself, which it does after some seconds.
//
// An image is attached so that its device goes away with its last mount, and the one
// of the pool has no name any more: nothing is left of a test that was killed, once
// its processes and mounts have ended.
type pool struct {
	t      *testing.T
	dir    string
	images int // made so far, to name them
}

// A drive is a mounted file system with images of disks. It stays mounted to the
// end of the test: several disks are in it.
type drive struct{ image, dir string }

// A disk is an image of an ext4, and where it is mounted while it is.
type disk struct {
	pool    *pool
	drive   drive
	image   string
	dir     string
	mounted bool
}

// needLoopDevices fails the test on a machine that cannot have a pool.
func needLoopDevices(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("power cuts need root: for loop devices and mounts")
	}
	for _, program := range []string{"losetup", "mount", "umount", "mkfs.xfs", "mkfs.ext4", "cp", "sync"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("power cuts need %s: make powercut installs the Debian packages xfsprogs, e2fsprogs and mount: %v", program, err)
		}
	}
	if out, err := exec.Command("losetup", "--find").CombinedOutput(); err != nil {
		t.Fatalf("power cuts need loop devices, and there is none: %v: %s", err, out)
	}
}

// newPool makes a file system that can clone files. It is in memory, where up to
// 2 GB are used, so that other users of the machine's disk do not count.
func newPool(t *testing.T) *pool {
	t.Helper()
	p := &pool{t: t, dir: t.TempDir()}
	p.run("mount", "-t", "tmpfs", "-o", "size=8g", "powercut", p.dir)
	t.Cleanup(func() { p.unmount(p.dir) })
	image := filepath.Join(p.dir, "image")
	p.sparse(image, "24G")
	p.run("mkfs.xfs", "-q", "-m", "reflink=1", image)
	p.mountToTheEnd(image, filepath.Join(p.dir, "pool"))
	if err := os.Remove(image); err != nil {
		t.Fatal(err)
	}
	return p
}

// newDisk makes a disk with nothing on it, in a drive of its own, and mounts it
// with these options of ext4.
func (p *pool) newDisk(options ...string) *disk {
	p.t.Helper()
	driveImage := p.next("pool", "drive")
	p.sparse(driveImage, "6G")
	p.run("mkfs.xfs", "-q", "-m", "reflink=1", driveImage)
	d := &disk{pool: p, drive: p.openDrive(driveImage)}
	d.image = filepath.Join(d.drive.dir, "disk")
	p.sparse(d.image, "2G")
	p.run("mkfs.ext4", "-q", "-F", d.image)
	p.run("sync", "--file-system", d.image) // the new file system is old when the test begins
	d.mount(options...)
	p.run("sync", "--file-system", d.dir)
	return d
}

// openDrive mounts a drive's image.
func (p *pool) openDrive(image string) drive {
	p.t.Helper()
	d := drive{image: image, dir: filepath.Join(p.dir, filepath.Base(image))}
	p.mountToTheEnd(image, d.dir, "nouuid") // its clones have the same UUID
	return d
}

// cut clones what a power cut leaves of the disk, with what is in its volatile
// cache or without. The clone is to be opened.
func (d *disk) cut(losesCache bool) *disk {
	d.pool.t.Helper()
	left := &disk{pool: d.pool, drive: d.drive}
	if losesCache {
		left.drive = drive{image: d.pool.next("pool", "drive")}
		d.pool.run("cp", "--reflink=always", d.drive.image, left.drive.image)
		return left
	}
	left.image = d.pool.next(filepath.Base(d.drive.dir), "disk")
	d.pool.run("cp", "--reflink=always", d.image, left.image)
	return left
}

// open mounts what a power cut has left of another disk.
func (d *disk) open(of *disk) {
	d.pool.t.Helper()
	if d.drive.dir == "" {
		d.drive = d.pool.openDrive(d.drive.image)
		d.image = filepath.Join(d.drive.dir, filepath.Base(of.image))
	}
	d.mount()
}

func (d *disk) mount(options ...string) {
	d.pool.t.Helper()
	d.dir = d.pool.next("", "data")
	d.pool.mount(d.image, d.dir, options...)
	d.mounted = true
	d.pool.t.Cleanup(d.unmount)
}

// unmount ends the use of the disk, when no service uses it any more.
func (d *disk) unmount() {
	d.pool.t.Helper()
	if d.mounted {
		d.mounted = false
		d.pool.unmount(d.dir)
	}
}

// next names a new file or directory of the pool's.
func (p *pool) next(dir, kind string) string {
	p.images++
	return filepath.Join(p.dir, dir, fmt.Sprintf("%s-%d", kind, p.images))
}

func (p *pool) sparse(image, size string) {
	p.t.Helper()
	p.run("truncate", "--size", size, image)
}

// mountToTheEnd mounts an image for the rest of the test.
func (p *pool) mountToTheEnd(image, dir string, options ...string) {
	p.t.Helper()
	p.mount(image, dir, options...)
	p.t.Cleanup(func() { p.unmount(dir) })
}

// mount attaches an image to a loop device and mounts it.
func (p *pool) mount(image, dir string, options ...string) {
	p.t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		p.t.Fatal(err)
	}
	device := strings.TrimSpace(p.run("losetup", "--find", "--show", image))
	defer p.run("losetup", "--detach", device) // when it is unmounted
	// A loop device remembers what anybody has told it about its last image.
	setting := "/sys/block/" + filepath.Base(device) + "/queue/write_cache"
	if cache, err := os.ReadFile(setting); err != nil || string(cache) != "write back\n" {
		p.t.Fatalf("%s is %q, so that the kernel would not flush %s; want write back: %v", setting, cache, device, err)
	}
	p.run("mount", "-o", strings.Join(append(options, "rw"), ","), device, dir)
}

func (p *pool) unmount(dir string) {
	p.t.Helper()
	out, err := exec.Command("umount", dir).CombinedOutput()
	if err == nil {
		return
	}
	p.t.Errorf("umount %s: %v: %s", dir, err, out)
	if out, err := exec.Command("umount", "--lazy", dir).CombinedOutput(); err != nil {
		p.t.Errorf("umount --lazy %s: %v: %s", dir, err, out)
	}
}

// run runs a program of the system, which has to succeed.
func (p *pool) run(name string, args ...string) string {
	p.t.Helper()
	cmd := exec.Command(name, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.t.Fatalf("%s: %v: %s", cmd, err, out)
	}
	return string(out)
}
