package layout

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// version changes with what the keys hold, so that old and new binaries can run side by
// side. Tests build binaries with another one (-ldflags -X).
var version = "cs2"

// Version returns the prefix of every key of a read model.
func Version() string { return version }

// Name names the layout of a read model with that many partitions.
func Name(partitions int) string {
	if partitions == 1 {
		return version
	}
	return version + "x" + strconv.Itoa(partitions)
}

// MaxPartitions bounds the number of partitions: every list asks all of them.
const MaxPartitions = 256

// A Partition holds the sessions whose ids hash to it. Its keys share a hash tag, so Redis
// Cluster keeps them in one slot.
type Partition struct {
	Base   string
	Number int // from 0
	Count  int // of all partitions
}

// Partitions returns all n partitions; 0 is one.
func Partitions(n int) []Partition {
	all := make([]Partition, max(n, 1))
	for i := range all {
		all[i] = Partition{Name(len(all)) + ":{" + strconv.Itoa(i) + "}:", i, len(all)}
	}
	return all
}

// PartitionNumber returns which of n partitions a session belongs to.
func PartitionNumber(id string, n int) int {
	if n == 1 {
		return 0
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))        // never fails
	return int(h.Sum32() % uint32(n)) //nolint:gosec // n is a small number
}

// PartitionOf returns the partition of a session, out of n.
func PartitionOf(id string, n int) Partition {
	all := Partitions(n)
	return all[PartitionNumber(id, len(all))]
}

// Checkpoint is the key of the live checkpoint, which names the generation that answers.
func (p Partition) Checkpoint() string { return p.Base + "checkpoint" }

// Next is the key of the checkpoint of a generation that is built beside the live one.
func (p Partition) Next() string { return p.Base + "next" }

// Generations is a set: every generation that has keys.
func (p Partition) Generations() string { return p.Base + "generations" }

// Notices is a pub/sub channel: each new checkpoint.
func (p Partition) Notices() string { return p.Base + "notices" }

// RebuildLock is held by the rebuild at work.
func (p Partition) RebuildLock() string { return p.Base + "rebuilding" }

// A Keyspace names the keys of one generation of a partition.
type Keyspace struct {
	Partition  Partition
	Generation string
	Prefix     string // begins all its keys
}

// Keys returns the keys of a generation.
func (p Partition) Keys(generation string) Keyspace {
	return Keyspace{p, generation, p.Base + generation + ":"}
}

// Document is the key of a session's document. With "", it begins all of them.
func (k Keyspace) Document(id string) string { return k.Prefix + "doc:" + id }

// Index is the key of an index. With "", it begins all of them.
func (k Keyspace) Index(name string) string { return k.Prefix + "by:" + name }

// Parked is a hash: notes of parked sessions by id.
func (k Keyspace) Parked() string { return k.Prefix + "parked" }

// GenerationPattern matches every key of the generation.
func (k Keyspace) GenerationPattern() string { return k.Prefix + "*" }

// NewGeneration returns a name that no generation has had.
func NewGeneration() string { return strings.ToLower(rand.Text()[:8]) }

// LayoutsKey is where each node registers its layout several times a second. All layouts
// share it, so it must never change.
const LayoutsKey = "cs:layouts"

// QueryKey is where an account's saved list query is stored. It belongs to no partition
// and no layout: it survives a rebuild, and nodes with another layout read it too. The keys
// of one account share a hash tag.
func QueryKey(account, digest string) string {
	return "cs:query:{" + Digest(account) + "}:" + digest
}

// QueriesKey lists the saved queries of an account.
func QueriesKey(account string) string { return "cs:queries:{" + Digest(account) + "}" }

// IndexAll is the index of all sessions. An index is a sorted set whose scores are all 0.
const IndexAll = "all"

// FieldIndex names the index of a field's value.
func FieldIndex(field, value string) string { return field + ":" + keyForm(value) }

// Digest returns a short hash of a text.
func Digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(sum[:24])
}

// IsDigest reports whether Digest could have returned it.
func IsDigest(digest string) bool { return len(digest) == DigestLength && IsPlain(digest) }

// ViewerIndexes are the indexes that together hold every session an account may see.
func ViewerIndexes(account string) []string {
	return []string{FieldIndex("createdBy", account), FieldIndex("participants", account)}
}

// Forms of a client's value in a key name.
const (
	maxPlain     = 64  // bytes; a UUID or a mail address stays readable
	hashMark     = '~' // begins the form of a value that is long or unsafe
	DigestLength = 32  // characters of a hash: 24 bytes in base64
)

// keyForm returns the form in which a client's value goes into a key name: short, without
// spaces or control characters. Two values may share a form, so every hit is checked
// against the document.
func keyForm(value string) string {
	if IsPlain(value) {
		return value
	}
	return string(hashMark) + Digest(value)
}

// IsPlain reports whether a value goes into key names as it is.
func IsPlain(value string) bool {
	if value == "" || len(value) > maxPlain || value[0] == hashMark {
		return false
	}
	for i := range len(value) {
		if value[i] <= ' ' || value[i] > '~' {
			return false
		}
	}
	return true
}

// MemberLength is the length of an index member: 8 bytes of createdAt, big-endian, then
// the 16 bytes of the id. Redis orders members with equal scores by their bytes, so an
// index is in the order of (createdAt, id).
const MemberLength = 24

// AppendMember appends a session's index member.
func AppendMember(b []byte, createdAt int64, id string) ([]byte, error) {
	if createdAt < 0 {
		return nil, fmt.Errorf("createdAt %d of session %q lies before 1970", createdAt, id)
	}
	is, ok := parseID(id)
	if !ok {
		return nil, fmt.Errorf("session id %q is not a UUID in its canonical form", id)
	}
	return append(binary.BigEndian.AppendUint64(b, uint64(createdAt)), is[:]...), nil
}

// parseID parses a UUID in canonical form: lower case, with hyphens.
func parseID(id string) (is uuid.UUID, ok bool) {
	is, err := uuid.Parse(id)
	return is, err == nil && len(id) == 36 && strings.ToLower(id) == id
}

// IsID reports whether an id is a UUID in canonical form.
func IsID(id string) bool {
	_, ok := parseID(id)
	return ok
}

// MemberPlace is the inverse of AppendMember.
func MemberPlace(member string) (createdAt int64, id string) {
	at := binary.BigEndian.Uint64([]byte(member))
	return int64(at), MemberID(member) //nolint:gosec // AppendMember wrote an int64
}

// MemberID returns the id in an index member.
func MemberID(member string) string { return uuid.UUID([]byte(member[8:])).String() }

// Lexicographic bounds of a sorted set, as ZRANGEBYLEX takes them.
const (
	LexFirst = "-"
	LexLast  = "+"
)

// LexBeyond is the lower bound of everything after a member, and the upper bound of
// everything before it.
func LexBeyond(member string) string { return "(" + member }

// LexTimes returns the bounds of the members created between two times, both inclusive.
// ok is false if no session can be.
func LexTimes(first, last int64) (low, high string, ok bool) {
	if last < 0 || first > last {
		return "", "", false
	}
	low, high = LexFirst, LexLast
	if first > 0 {
		low = "[" + timeBytes(first)
	}
	if last < math.MaxInt64 {
		high = LexBeyond(timeBytes(last + 1))
	}
	return low, high, true
}

func timeBytes(t int64) string {
	return string(binary.BigEndian.AppendUint64(nil, uint64(t))) //nolint:gosec // not negative
}
