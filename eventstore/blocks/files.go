package blocks

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/minio/highwayhash"
)

// A File is one block file, <n>.blk. The server appends to the one with the highest number.
type File struct {
	Number int
	Path   string
	Size   int64
}

// StreamDir returns the directory in which the server keeps a stream. Its block files are in
// msgs below it.
func StreamDir(storeDir, stream string) string {
	return filepath.Join(storeDir, "jetstream", "$G", "streams", stream)
}

// MessagesDir returns the directory of a stream's block files.
func MessagesDir(storeDir, stream string) string {
	return filepath.Join(StreamDir(storeDir, stream), "msgs")
}

// Path returns the path of a block file.
func Path(dir string, number int) string { return filepath.Join(dir, strconv.Itoa(number)+".blk") }

// Files returns the block files of a directory in the order of their numbers. A directory
// that does not exist has none.
func Files(dir string) ([]File, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var files []File
	for _, e := range entries {
		name, isBlock := strings.CutSuffix(e.Name(), ".blk")
		if !isBlock {
			continue
		}
		number, err := strconv.Atoi(name)
		if err != nil {
			return nil, fmt.Errorf("%s is not a block file as expected", filepath.Join(dir, e.Name()))
		}
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		files = append(files, File{Number: number, Path: Path(dir, number), Size: info.Size()})
	}
	slices.SortFunc(files, func(a, b File) int { return cmp.Compare(a.Number, b.Number) })
	return files, nil
}

// hash returns the server's checksum function for a block file.
func hash(stream string, number int) *highwayhash.Digest64 {
	key := sha256.Sum256(fmt.Appendf(nil, "%s-%d", stream, number))
	h, err := highwayhash.NewDigest64(key[:])
	if err != nil {
		panic(err) // the key has the right length
	}
	return h
}
