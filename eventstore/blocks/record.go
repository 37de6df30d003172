package blocks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/minio/highwayhash"
)

// A Record is one message as a block file holds it. Its slices are valid until the next
// record is read.
type Record struct {
	Position uint64
	File     File
	Offset   int64 // of the record in the file
	Raw      []byte
	Time     int64 // when the server took the message, in nanoseconds since 1970
	Subject  []byte
	Header   []byte // from NATS/1.0 to the empty line; nil for a message without headers
	Data     []byte
	// Removed says that the message is not there any more. The log removes nothing, but a
	// salvaged one ends with such a record, so that lost positions are not given out again.
	Removed bool
}

// The layout of a record, all numbers little endian:
//
//	u32 length of the record; the highest bit says that there are headers
//	u64 sequence, i64 time in nanoseconds, u16 length of the subject
//	subject
//	u32 length of the headers, if there are any
//	headers, data
//	u64 checksum of sequence, time, subject, headers, and data
const (
	headSize     = 22
	checksumSize = 8
	// maxRecord is the length beyond which the server takes a record for damaged.
	maxRecord = 32 << 20

	hasHeaders = 1 << 31
	// The bits of the sequence that mark the record of a removed message.
	erased    = 1 << 63
	tombstone = 1 << 62
)

var (
	headerStart = []byte("NATS/1.0")
	headerEnd   = []byte("\r\n\r\n")
)

var (
	errCut      = errors.New("the record is cut off")
	errChecksum = errors.New("the checksum does not match")
	errHeaders  = errors.New("the headers do not end where the record says")
)

// parse reads the record at the start of content, and checks it.
func parse(content []byte, h *highwayhash.Digest64, prefix []byte) (Record, error) {
	if len(content) < headSize+checksumSize {
		return Record{}, errCut
	}
	word := binary.LittleEndian.Uint32(content)
	length := int(word &^ hasHeaders)
	subjectSize := int(binary.LittleEndian.Uint16(content[20:]))
	start := headSize + subjectSize // of headers and data
	if word&hasHeaders != 0 {
		start += 4
	}
	if length < start+checksumSize || length > maxRecord {
		return Record{}, fmt.Errorf("a record of %d bytes with a subject of %d bytes is impossible", length, subjectSize)
	}
	if length > len(content) {
		return Record{}, errCut
	}
	body, sum := content[start:length-checksumSize], content[length-checksumSize:length]
	r := Record{Raw: content[:length], Subject: content[headSize : headSize+subjectSize], Data: body}
	h.Reset()
	_, _ = h.Write(content[4:20])
	_, _ = h.Write(r.Subject)
	_, _ = h.Write(body)
	if binary.LittleEndian.Uint64(sum) != h.Sum64() {
		return Record{}, errChecksum
	}
	if word&hasHeaders != 0 {
		// The checksum does not cover this length.
		size := int(binary.LittleEndian.Uint32(content[start-4:]))
		end := bytes.Index(body, headerEnd) + len(headerEnd)
		if size != end || !bytes.HasPrefix(body, headerStart) {
			return Record{}, errHeaders
		}
		r.Header, r.Data = body[:size:size], body[size:]
	}
	sequence := binary.LittleEndian.Uint64(content[4:])
	r.Position = sequence &^ (erased | tombstone)
	r.Removed = r.Position != sequence
	r.Time = int64(binary.LittleEndian.Uint64(content[12:])) //nolint:gosec // as the server writes it
	if !r.Removed && !bytes.HasPrefix(r.Subject, prefix) {
		return Record{}, fmt.Errorf("the subject %q is not one of the log", r.Subject)
	}
	return r, nil
}

// Append appends a record to the content of a block file. Its position, time, subject,
// header, and data are used.
func (l *Log) Append(content []byte, number int, r Record) []byte {
	h := hash(l.Stream, number)
	start := len(content)
	length := headSize + len(r.Subject) + len(r.Header) + len(r.Data) + checksumSize
	word, sequence := uint32(length), r.Position //nolint:gosec // far below 4 GB
	if r.Header != nil {
		word = uint32(length+4) | hasHeaders //nolint:gosec // far below 2 GB
	}
	if r.Removed {
		sequence |= erased
	}
	content = binary.LittleEndian.AppendUint32(content, word)
	content = binary.LittleEndian.AppendUint64(content, sequence)
	content = binary.LittleEndian.AppendUint64(content, uint64(r.Time)) //nolint:gosec // as the server writes it
	_, _ = h.Write(content[start+4:])
	content = binary.LittleEndian.AppendUint16(content, uint16(len(r.Subject))) //nolint:gosec // as the server writes it
	content = append(content, r.Subject...)
	if r.Header != nil {
		content = binary.LittleEndian.AppendUint32(content, uint32(len(r.Header))) //nolint:gosec // far below 4 GB
	}
	content = append(append(content, r.Header...), r.Data...)
	_, _ = h.Write(r.Subject)
	_, _ = h.Write(r.Header)
	_, _ = h.Write(r.Data)
	return binary.LittleEndian.AppendUint64(content, h.Sum64())
}
