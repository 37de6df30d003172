// Package events holds the published description of the events: an AsyncAPI document,
// and a JSON Schema for the data of each type.
package events

import (
	"embed"
	"io/fs"
	"path"
)

// Where the service serves the description. On disk the files lie in the same order,
// so that references between them hold in both places.
const root = "/chat-sessions/events"

//go:embed asyncapi.json schemas
var files embed.FS

// A Document is one file of the description.
type Document struct {
	Path      string // where the service serves it
	MediaType string
	Content   []byte
}

// Documents returns all of them.
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
