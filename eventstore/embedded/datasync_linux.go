package embedded

import (
	"os"
	"syscall"
)

// datasync makes a file's content durable, with only the metadata that reading it needs.
func datasync(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); err != syscall.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
