package cloudevent

import (
	"strconv"

	"chatsessions/domain"
)

// Attributes that are the same for every event of the log (CloudEvents 1.0, section 3.1).
const (
	SpecVersion = "1.0"
	Source      = "/chat-sessions"
	DataType    = "application/json"
)

// Schema names the shape of the type's data. CloudEvents asks for an absolute URI; it is a
// name, not an address, because the service does not know its host.
func Schema(t domain.EventType) string {
	return "urn:chat-sessions:events/schemas/" + string(t) + ".json"
}

// SchemaPath is the path at which the service publishes the schema.
func SchemaPath(t domain.EventType) string {
	return "/chat-sessions/events/schemas/" + string(t) + ".json"
}

// Append writes CloudEvents 1.0 JSON: the log's envelope, and the event's position. Position
// and previous are decimal strings: an Integer of CloudEvents has only 32 bits.
func Append(b []byte, r *domain.Record) []byte {
	b = append(b, '{')
	b = appendText(b, "specversion", SpecVersion)
	b = appendText(b, "id", r.ID)
	b = appendText(b, "source", Source)
	b = appendText(b, "type", string(r.Event.Type))
	b = appendText(b, "subject", r.Event.Session.ID)
	b = appendText(b, "time", r.Time.UTC().Format(domain.TimeFormat))
	b = appendText(b, "datacontenttype", DataType)
	b = appendText(b, "dataschema", Schema(r.Event.Type))
	b = appendNumber(b, "sessionversion", r.Event.Session.Version)
	b = appendText(b, "position", strconv.FormatUint(r.Position, 10))
	if r.Previous > 0 {
		b = appendText(b, "previous", strconv.FormatUint(r.Previous, 10))
	}
	b = appendText(b, "actor", r.Request.Actor)
	b = appendText(b, "correlationid", r.Request.CorrelationID)
	b = appendText(b, "requestkey", r.Request.Key)
	b = appendText(b, "requestdigest", r.Request.Digest)
	b = appendText(b, "traceparent", r.Request.TraceParent)
	b = append(b, `"data":{`...)
	return append(appendData(b, r), "}}"...)
}

// AppendHistory writes an event of a history: who changed what, when, and at which position.
func AppendHistory(b []byte, r *domain.Record) []byte {
	b = append(b, '{')
	b = appendNumber(b, "position", r.Position)
	b = appendText(b, "id", r.ID)
	b = appendText(b, "type", string(r.Event.Type))
	b = appendText(b, "time", r.Time.UTC().Format(domain.TimeFormat))
	b = appendText(b, "actor", r.Request.Actor)
	b = appendText(b, "correlationId", r.Request.CorrelationID)
	b = appendNumber(b, "version", r.Event.Session.Version)
	return append(appendData(b, r), '}')
}

// appendData writes the members of the event's data.
func appendData(b []byte, r *domain.Record) []byte {
	b = append(append(b, `"changes":`...), r.Event.Changes...)
	b = append(b, `,"session":`...)
	if r.Encoded != nil {
		return append(b, r.Encoded...)
	}
	return r.Event.Session.AppendJSON(b)
}

// appendText writes a member and a comma; nothing if the value is empty.
func appendText(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return append(domain.AppendQuoted(appendName(b, name), value), ',')
}

// appendNumber writes a member and a comma.
func appendNumber(b []byte, name string, value uint64) []byte {
	return append(strconv.AppendUint(appendName(b, name), value, 10), ',')
}

func appendName(b []byte, name string) []byte {
	return append(append(append(b, '"'), name...), '"', ':')
}
