package problem

import (
	"fmt"
	"net/http"
	"strings"

	"chatsessions/domain"
)

// A Problem is an error as a client sees it.
type Problem struct {
	Type     string  `json:"type"`
	Title    string  `json:"title"`
	Status   int     `json:"status"`
	Detail   string  `json:"detail"`
	Instance string  `json:"instance"`
	Errors   []field `json:"errors,omitempty"`

	Name      string `json:"name"`
	Message   string `json:"message"`
	Code      int    `json:"code"`
	ClassName string `json:"className"`

	State    domain.State `json:"state,omitempty"`
	Allowed  *[]string    `json:"allowed,omitempty"`
	Conflict *conflict    `json:"conflict,omitempty"`
	// MayHaveBeenWritten is in the 503 of every write.
	MayHaveBeenWritten *bool `json:"mayHaveBeenWritten,omitempty"`
	// LogEnd is the end of the log, for a client that asked for a position beyond it.
	// LastEventID is where to resume, for the last event of a stream.
	LogEnd      *uint64 `json:"logEnd,omitempty"`
	LastEventID string  `json:"lastEventId,omitempty"`

	headers map[string]string
	cause   error // logged, never shown
	quiet   bool  // not logged
}

type field struct {
	Pointer string `json:"pointer"`
	Detail  string `json:"detail"`
}

// A conflict is the transition that came before a refused directive.
type conflict struct {
	Type domain.EventType `json:"type"`
	By   string           `json:"by"`
	At   int64            `json:"at"`
}

func (p *Problem) Error() string { return p.Detail }
func (p *Problem) Unwrap() error { return p.cause }

// With sets a header of the response.
func (p *Problem) With(header, value string) *Problem {
	if p.headers == nil {
		p.headers = map[string]string{}
	}
	p.headers[header] = value
	return p
}

// Because sets the cause, which is logged and never shown.
func (p *Problem) Because(err error) *Problem {
	p.cause = err
	return p
}

// Quietly keeps the problem out of the log.
func (p *Problem) Quietly() *Problem {
	p.quiet = true
	return p
}

// Written reports to the client whether its write may be in the log.
func (p *Problem) Written(maybe bool) *Problem {
	p.MayHaveBeenWritten = &maybe
	return p
}

// feathersNames are the @feathersjs/errors classes not named after a reason phrase.
var feathersNames = map[int]string{
	http.StatusUnauthorized:        "Not Authenticated",
	http.StatusRequestTimeout:      "Timeout",
	http.StatusUnprocessableEntity: "Unprocessable",
	http.StatusInternalServerError: "General Error",
	http.StatusServiceUnavailable:  "Unavailable",
}

// reason returns RFC 9110's reason phrase; net/http keeps some older ones.
func reason(status int) string {
	switch status {
	case http.StatusRequestEntityTooLarge:
		return "Payload Too Large"
	case http.StatusRequestURITooLong:
		return "URI Too Long"
	}
	return http.StatusText(status)
}

// New returns the problem of a status, with the class that Feathers has for it.
func New(status int, format string, args ...any) *Problem {
	title := reason(status)
	words := feathersNames[status]
	if words == "" {
		words = title
	}
	detail := fmt.Sprintf(format, args...)
	return &Problem{
		Type: "about:blank", Title: title, Status: status, Detail: detail,
		Name: strings.ReplaceAll(words, " ", ""), Message: detail, Code: status,
		ClassName: strings.ToLower(strings.ReplaceAll(words, " ", "-")),
	}
}
