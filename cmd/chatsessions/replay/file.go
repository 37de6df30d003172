package replay

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// CreateFile returns a file that gets its name with CloseAtomicallyReplace. Until then it is
// hidden in the same directory, where a crash leaves it; Cleanup removes it. Only its owner
// can read it. An existing file is an error unless it may be replaced; a device or a link is one always.
func CreateFile(path string, replace bool) (*renameio.PendingFile, error) {
	info, err := os.Lstat(path)
	switch {
	case err == nil && !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file; only such a file is replaced, and that with --force", path)
	case err == nil && !replace:
		return nil, fmt.Errorf("%s is there already; --force replaces it", path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	// Without WithTempDir, it may be written to $TMPDIR.
	return renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithPermissions(0o600))
}
