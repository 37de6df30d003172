package envelope

import (
	"fmt"

	"chatsessions/domain"
	"chatsessions/domain/cloudevent"
)

// The shape of an event's data has a name, its ce-dataschema. A new member is added to a
// shape without a new name. Any other change makes a new shape with a new name
// (…/chat-session.created/2.json); events of the old shape stay in the log unchanged. Only
// this file knows old shapes: all other code sees those of today (docs/decisions/0011).

// An upcaster converts data of an old shape to the next shape.
type upcaster struct {
	to   string // the ce-dataschema of the result
	data func(old []byte) ([]byte, error)
}

// upcasters holds the upcaster of each old shape, by its ce-dataschema.
type upcasters map[string]upcaster

// current are the upcasters of the log. No shape has been replaced yet.
var current = upcasters{}

// today holds the shapes that are written today, by ce-dataschema, and by path: the first
// name of the first shapes.
var today = tabulate()

func tabulate() map[string]domain.EventType {
	table := map[string]domain.EventType{}
	for _, t := range domain.EventTypes() {
		table[cloudevent.Schema(t)], table[cloudevent.SchemaPath(t)] = t, t
	}
	return table
}

// upcast returns an event's data in the shape of today, converted step by step from an older
// one. An unknown shape is an error: to read it as another one would falsify the event.
func (u upcasters) upcast(typ domain.EventType, schema string, data []byte) ([]byte, error) {
	if today[schema] == typ {
		return data, nil
	}
	for schema != cloudevent.Schema(typ) {
		step, known := u[schema]
		if !known {
			return nil, fmt.Errorf("%s is %q, a shape of %s that this version of the service does not know; it knows %q", HeaderDataSchema, schema, typ, cloudevent.Schema(typ))
		}
		converted, err := step.data(data)
		if err != nil {
			return nil, fmt.Errorf("data of the shape %q cannot be converted to %q: %w", schema, step.to, err)
		}
		schema, data = step.to, converted
	}
	return data, nil
}
