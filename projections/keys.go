package projections

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

// layoutVersion begins every key. A change of what the keys hold is a new
// version, so that an old and a new binary can run side by side. Tests build
// binaries with another one (-ldflags -X).
var layoutVersion = "cs2"

// versionOfLayout begins every key of a read model.
func versionOfLayout() string { return layoutVersion }

// layoutOf names a read model of so many partitions. One with another number of them
// is another layout: it is built beside.
func layoutOf(partitions int) string {
	if partitions == 1 {
		return layoutVersion
	}
	return layoutVersion + "x" + strconv.Itoa(partitions)
}

// MaxPartitions bounds their number: each list asks all of them.
const MaxPartitions = 256

// A partition is a part of the sessions, by their ids. Its keys share a hash tag, so
// that Redis Cluster keeps them in one slot and one transaction can touch them all.
type partition struct {
	base  string
	shard int // which one it is, from 0 on
	count int // how many there are
}

func newPartitions(n int) []partition {
	all := make([]partition, max(n, 1))
	for i := range all {
		all[i] = partition{layoutOf(len(all)) + ":{" + strconv.Itoa(i) + "}:", i, len(all)}
	}
	return all
}

// shardOf returns which of n partitions a session belongs to.
func shardOf(id string, n int) int {
	if n == 1 {
		return 0
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))        // never fails
	return int(h.Sum32() % uint32(n)) //nolint:gosec // n is a small number
}

// partitionOf returns the partition of a session, of so many.
func partitionOf(id string, n int) partition {
	all := newPartitions(n)
	return all[shardOf(id, len(all))]
}

func (p partition) checkpoint() string  { return p.base + "checkpoint" }  // of the generation that answers
func (p partition) next() string        { return p.base + "next" }        // checkpoint of one that is built beside it
func (p partition) generations() string { return p.base + "generations" } // a set of all that have keys
func (p partition) notices() string     { return p.base + "notices" }     // a pub/sub channel
func (p partition) rebuilding() string  { return p.base + "rebuilding" }  // the lock of a rebuild
func (p partition) pattern() string     { return p.base + "*" }           // every key of the partition

// A keyspace names the keys of one generation of a partition. A generation is filled
// once and then kept up to date, until another one takes its place.
type keyspace struct {
	partition
	generation string
	begin      string // what its keys begin with
}

func (p partition) of(generation string) keyspace {
	return keyspace{p, generation, p.base + generation + ":"}
}

func (k keyspace) documents() string         { return k.begin + "doc:" } // what document keys begin with
func (k keyspace) document(id string) string { return k.documents() + id }
func (k keyspace) indexes() string           { return k.begin + "by:" } // what index keys begin with
func (k keyspace) index(name string) string  { return k.indexes() + name }
func (k keyspace) parked() string            { return k.begin + "parked" } // a hash: why a session could not be projected, by id
func (k keyspace) allKeys() string           { return k.begin + "*" }      // a pattern: every key of the generation

// newGeneration returns a name that no generation has had.
func newGeneration() string { return strings.ToLower(rand.Text()[:8]) }

// layoutsKey is where each node says, several times a second, in which layout it keeps
// its read model. It is the same for all layouts, and always will be.
const layoutsKey = "cs:layouts"

// queryKey is where an account's saved list query lies, and queriesKey where it is
// noted which ones the account has. They belong to no partition and to no layout: they
// outlive a rebuild of the read model, and a node with another layout loads them too.
// Those of an account share a hash tag.
func queryKey(account, digest string) string {
	return "cs:query:{" + hashed(account) + "}:" + digest
}

func queriesKey(account string) string { return "cs:queries:{" + hashed(account) + "}" }

// Names of indexes. An index is a sorted set of members, all with score 0.
const indexAll = "all"

func fieldIndex(field, value string) string { return field + ":" + bounded(value) }
func isHashed(boundedValue string) bool     { return boundedValue[0] == hashMark }
func digestOf(text string) string           { return hashed(text) }
func validDigest(digest string) bool        { return len(digest) == digestLength && isPlain(digest) }

// readerIndexes are those that together hold the sessions which an account may see.
func readerIndexes(account string) []string {
	return []string{fieldIndex("createdBy", account), fieldIndex("participants", account)}
}

const (
	maxPlain     = 64  // bytes; a UUID or a mail address stays legible
	hashMark     = '~' // begins what stands for a value that is long or unsafe
	digestLength = 32  // characters of a hash: 24 bytes in base64
)

// bounded is the form in which a value that a client chose goes into a key's
// name: short, and without spaces or control characters. Different values may
// in theory share a form, so a hit is verified against the document.
func bounded(value string) string {
	if isPlain(value) {
		return value
	}
	return string(hashMark) + hashed(value)
}

func isPlain(value string) bool {
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
const memberLength = 24

// appendMember appends a session's index member.
func appendMember(b []byte, createdAt int64, id string) ([]byte, error) {
	if createdAt < 0 {
		return nil, fmt.Errorf("createdAt %d of session %q lies before 1970", createdAt, id)
	}
	var member [memberLength]byte
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

func isID(id string) bool { return decodeID(make([]byte, 16), id) }

// placeOf is the inverse of appendMember.
func placeOf(member string) (createdAt int64, id string) {
	at := binary.BigEndian.Uint64([]byte(member))
	return int64(at), idOf(member) //nolint:gosec // appendMember wrote an int64
}

// idOf returns the id in an index member.
func idOf(member string) string {
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
	lexFirst = "-"
	lexLast  = "+"
)

func lexFrom(member string) string   { return "[" + member }
func lexAfter(member string) string  { return "(" + member }
func lexBefore(member string) string { return "(" + member }

// lexTimes returns the bounds of the members whose createdAt lies between two
// times, both inclusive; ok is false when there is no such time.
func lexTimes(first, last int64) (low, high string, ok bool) {
	if last < 0 || first > last {
		return "", "", false
	}
	low, high = lexFirst, lexLast
	if first > 0 {
		low = lexFrom(timeBytes(first))
	}
	if last < math.MaxInt64 {
		high = lexBefore(timeBytes(last + 1))
	}
	return low, high, true
}

func timeBytes(t int64) string {
	return string(binary.BigEndian.AppendUint64(nil, uint64(t))) //nolint:gosec // not negative
}
