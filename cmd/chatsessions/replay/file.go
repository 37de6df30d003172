package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// A newFile is written under another name, in the same directory, and gets its own when
// it is whole: nobody takes a part for all of it.
type newFile struct {
	*os.File
	path string
	kept bool
}

// createFile returns an error where there is such a file already, unless it is to be
// replaced, and where there is anything else of that name, a device for example. The file is readable by its owner only: it tells what people did.
func createFile(path string, replace bool) (*newFile, error) {
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file; only such a file is replaced, and that with --force", path)
	} else if err == nil && !replace {
		return nil, fmt.Errorf("%s is there already; --force replaces it", path)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.part")
	if err != nil {
		return nil, err
	}
	return &newFile{File: file, path: path}, nil
}

// keep gives the file its name, when it is on disk.
func (f *newFile) keep() error {
	err := f.Sync()
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), f.path)
	}
	f.kept = err == nil
	return err
}

// discard removes the file, unless it was kept.
func (f *newFile) discard() {
	if f.kept {
		return
	}
	_ = f.Close()
	_ = os.Remove(f.Name())
}
