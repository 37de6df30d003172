package eventstore

import (
	"fmt"

	"chatsessions/domain"
	"chatsessions/domain/cloudevent"
)

// The shape of an event's data has a name, its ce-dataschema. Members are added to a
// shape without another name. What cannot be had by adding is a new shape with a new
// name (…/chat-session.created/2.json), and what was written in the old one stays in
// the log as it is. This is the one place that knows old shapes: whatever else reads
// events sees those of today (docs/decisions/0011).

// A lift makes data of an old shape into data of the one that came after it.
type lift struct {
	to   string // the ce-dataschema of what it makes
	data func(old []byte) ([]byte, error)
}

// An upcaster holds the lift from each old shape, by its ce-dataschema.
type upcaster map[string]lift

// lifts are those of the log. No shape has come after another yet.
var lifts = upcaster{}

// today holds the shapes that are written today, by their ce-dataschema: by the path too,
// which was the name of the first shapes at first. It is looked into for every event that
// is read, and saves making the name for the comparison.
var today = tabulate()

func tabulate() map[string]domain.EventType {
	table := map[string]domain.EventType{}
	for _, t := range domain.EventTypes() {
		table[cloudevent.Schema(t)], table[cloudevent.SchemaPath(t)] = t, t
	}
	return table
}

// upcast returns an event's data in the shape of today, lifted step by step where it was
// written in an older one. A shape that is not known, such as one of a later version of
// the service, is an error: to read it as another would falsify it.
func (u upcaster) upcast(typ domain.EventType, schema string, data []byte) ([]byte, error) {
	if today[schema] == typ {
		return data, nil
	}
	for schema != cloudevent.Schema(typ) {
		l, known := u[schema]
		if !known {
			return nil, fmt.Errorf("%s is %q, a shape of %s that this version of the service does not know; it knows %q", headerDataSchema, schema, typ, cloudevent.Schema(typ))
		}
		lifted, err := l.data(data)
		if err != nil {
			return nil, fmt.Errorf("data of the shape %q cannot be lifted to %q: %w", schema, l.to, err)
		}
		schema, data = l.to, lifted
	}
	return data, nil
}
