// Package events holds the published description of the events: an AsyncAPI document and
// a JSON Schema for the data of each type. The service serves them without a token. The
// package has no state and starts no goroutine.
//
// # Invariants
//
// References between the files hold on disk and where the service serves them. Tests
// compare the files with messages of a real server.
package events

import (
	"embed"
	"io/fs"
	"path"
)

// root is where the service serves the description.
const root = "/chat-sessions/events"

//go:embed asyncapi.json schemas
var files embed.FS

// A Document is one file of the description.
type Document struct {
	Path      string // where the service serves it
	MediaType string
	Content   []byte
}

// Documents returns all files of the description.
func Documents() []Document {
	var documents []Document
	err := fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := files.ReadFile(name)
		documents = append(documents, Document{path.Join(root, name), mediaType(name), content})
		return err
	})
	if err != nil {
		panic(err) // the files are part of the program
	}
	return documents
}

func mediaType(name string) string {
	if name == "asyncapi.json" {
		return "application/vnd.aai.asyncapi+json;version=3.0.0"
	}
	return "application/schema+json"
}
