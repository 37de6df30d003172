package layout

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"math"
	"strconv"
	"strings"
)

// version begins every key. A change of what the keys hold is a new
// version, so that an old and a new binary can run side by side. Tests build
// binaries with another one (-ldflags -X).
var version = "cs2"

// versionOfLayout begins every key of a read model.
func Version() string { return version }

// layoutOf names a read model of so many partitions. One with another number of them
// is another layout: it is built beside.
func Name(partitions int) string {
	if partitions == 1 {
		return version
	}
	return version + "x" + strconv.Itoa(partitions)
}

// MaxPartitions bounds their number: each list asks all of them.
const MaxPartitions = 256

// A partition is a part of the sessions, by their ids. Its keys share a hash tag, so
// that Redis Cluster keeps them in one slot and one transaction can touch them all.
type Partition struct {
	Base   string
	Number int // which one it is, from 0 on
	Count  int // how many there are
}

func Partitions(n int) []Partition {
	all := make([]Partition, max(n, 1))
	for i := range all {
		all[i] = Partition{Name(len(all)) + ":{" + strconv.Itoa(i) + "}:", i, len(all)}
	}
	return all
}

// shardOf returns which of n partitions a session belongs to.
func PartitionNumber(id string, n int) int {
	if n == 1 {
		return 0
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))        // never fails
	return int(h.Sum32() % uint32(n)) //nolint:gosec // n is a small number
}

// partitionOf returns the partition of a session, of so many.
func PartitionOf(id string, n int) Partition {
	all := Partitions(n)
	return all[PartitionNumber(id, len(all))]
}

func (p Partition) Checkpoint() string  { return p.Base + "checkpoint" }  // of the generation that answers
func (p Partition) Next() string        { return p.Base + "next" }        // checkpoint of one that is built beside it
func (p Partition) Generations() string { return p.Base + "generations" } // a set of all that have keys
func (p Partition) Notices() string     { return p.Base + "notices" }     // a pub/sub channel
func (p Partition) RebuildLock() string { return p.Base + "rebuilding" }  // the lock of a rebuild
func (p Partition) KeyPattern() string  { return p.Base + "*" }           // every key of the partition

// A keyspace names the keys of one generation of a partition. A generation is filled
// once and then kept up to date, until another one takes its place.
type Keyspace struct {
	Partition
	Generation string
	Prefix     string // what its keys begin with
}

func (p Partition) Keys(generation string) Keyspace {
	return Keyspace{p, generation, p.Base + generation + ":"}
}

func (k Keyspace) DocumentPrefix() string    { return k.Prefix + "doc:" } // what document keys begin with
func (k Keyspace) Document(id string) string { return k.DocumentPrefix() + id }
func (k Keyspace) IndexPrefix() string       { return k.Prefix + "by:" } // what index keys begin with
func (k Keyspace) Index(name string) string  { return k.IndexPrefix() + name }
func (k Keyspace) Parked() string            { return k.Prefix + "parked" } // a hash: why a session could not be projected, by id
func (k Keyspace) GenerationPattern() string { return k.Prefix + "*" }      // a pattern: every key of the generation

// newGeneration returns a name that no generation has had.
func NewGeneration() string { return strings.ToLower(rand.Text()[:8]) }

// layoutsKey is where each node says, several times a second, in which layout it keeps
// its read model. It is the same for all layouts, and always will be.
const LayoutsKey = "cs:layouts"

// queryKey is where an account's saved list query lies, and queriesKey where it is
// noted which ones the account has. They belong to no partition and to no layout: they
// outlive a rebuild of the read model, and a node with another layout loads them too.
// Those of an account share a hash tag.
func QueryKey(account, digest string) string {
	return "cs:query:{" + hashed(account) + "}:" + digest
}

func QueriesKey(account string) string { return "cs:queries:{" + hashed(account) + "}" }

// Names of indexes. An index is a sorted set of members, all with score 0.
const IndexAll = "all"

func FieldIndex(field, value string) string { return field + ":" + keyForm(value) }
func isHashed(boundedValue string) bool     { return boundedValue[0] == hashMark }
func Digest(text string) string             { return hashed(text) }
func IsDigest(digest string) bool           { return len(digest) == DigestLength && IsPlain(digest) }

// readerIndexes are those that together hold the sessions which an account may see.
func ReaderIndexes(account string) []string {
	return []string{FieldIndex("createdBy", account), FieldIndex("participants", account)}
}

const (
	maxPlain     = 64  // bytes; a UUID or a mail address stays legible
	hashMark     = '~' // begins what stands for a value that is long or unsafe
	DigestLength = 32  // characters of a hash: 24 bytes in base64
)

// bounded is the form in which a value that a client chose goes into a key's
// name: short, and without spaces or control characters. Different values may
// in theory share a form, so a hit is verified against the document.
func keyForm(value string) string {
	if IsPlain(value) {
		return value
	}
	return string(hashMark) + hashed(value)
}

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

func hashed(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(sum[:24])
}

// memberLength is the length of an index member: 8 bytes of createdAt, big
// endian, and the 16 bytes of the id. So the order of bytes, which is the order
// of a sorted set whose scores are equal, is that of (createdAt, id).
const MemberLength = 24

// appendMember appends a session's index member.
func AppendMember(b []byte, createdAt int64, id string) ([]byte, error) {
	if createdAt < 0 {
		return nil, fmt.Errorf("createdAt %d of session %q lies before 1970", createdAt, id)
	}
	var member [MemberLength]byte
	binary.BigEndian.PutUint64(member[:], uint64(createdAt))
	if !decodeID(member[8:], id) {
		return nil, fmt.Errorf("session id %q is not a UUID in its canonical form", id)
	}
	return append(b, member[:]...), nil
}

// decodeID writes the 16 bytes of a UUID, and says whether the id is one in its
// canonical form: lower case, with hyphens.
func decodeID(to []byte, id string) bool {
	if len(id) != 36 || id[8] != '-' || id[13] != '-' || id[18] != '-' || id[23] != '-' {
		return false
	}
	for i := range len(id) {
		if id[i] >= 'A' && id[i] <= 'F' {
			return false
		}
	}
	var digits [32]byte
	n := copy(digits[:], id[:8])
	n += copy(digits[n:], id[9:13])
	n += copy(digits[n:], id[14:18])
	n += copy(digits[n:], id[19:23])
	copy(digits[n:], id[24:])
	_, err := hex.Decode(to, digits[:])
	return err == nil
}

func IsID(id string) bool { return decodeID(make([]byte, 16), id) }

// placeOf is the inverse of appendMember.
func MemberPlace(member string) (createdAt int64, id string) {
	at := binary.BigEndian.Uint64([]byte(member))
	return int64(at), MemberID(member) //nolint:gosec // appendMember wrote an int64
}

// idOf returns the id in an index member.
func MemberID(member string) string {
	b := []byte(member[8:])
	id := make([]byte, 0, 36)
	for _, part := range [][]byte{b[:4], b[4:6], b[6:8], b[8:10], b[10:]} {
		if len(id) > 0 {
			id = append(id, '-')
		}
		id = hex.AppendEncode(id, part)
	}
	return string(id)
}

// Lexicographic bounds of sorted sets, as ZRANGEBYLEX takes them.
const (
	LexFirst = "-"
	LexLast  = "+"
)

func lexFrom(member string) string   { return "[" + member }
func LexAfter(member string) string  { return "(" + member }
func LexBefore(member string) string { return "(" + member }

// lexTimes returns the bounds of the members whose createdAt lies between two
// times, both inclusive; ok is false when there is no such time.
func LexTimes(first, last int64) (low, high string, ok bool) {
	if last < 0 || first > last {
		return "", "", false
	}
	low, high = LexFirst, LexLast
	if first > 0 {
		low = lexFrom(timeBytes(first))
	}
	if last < math.MaxInt64 {
		high = LexBefore(timeBytes(last + 1))
	}
	return low, high, true
}

func timeBytes(t int64) string {
	return string(binary.BigEndian.AppendUint64(nil, uint64(t))) //nolint:gosec // not negative
}
