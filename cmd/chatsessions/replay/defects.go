package replay

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"chatsessions/domain"
	"chatsessions/eventstore/envelope"
)

// Defects reports messages of the log that cannot be read, and counts them.
type Defects struct {
	Out io.Writer // gets a line for each
	n   int
}

// Count reports the unreadable messages of a batch.
func (d *Defects) Count(batch []domain.Entry) {
	for i := range batch {
		if err := batch[i].Err; err != nil {
			d.report(err)
		}
	}
}

// Report reports damages of the log's files.
func (d *Defects) Report(damages []error) {
	for _, err := range damages {
		d.report(err)
	}
}

// Take reports err if a message of the log is the reason, and returns any other error.
func (d *Defects) Take(err error) error {
	var unreadable *envelope.UnreadableError
	if errors.As(err, &unreadable) {
		d.report(unreadable)
		return nil
	}
	return err
}

func (d *Defects) report(err error) {
	d.n++
	fmt.Fprintf(d.Out, "chatsessions: %s\n", Printable(err.Error()))
}

// Err returns an error if there were any.
func (d *Defects) Err() error {
	if d.n == 0 {
		return nil
	}
	found := "a defect was found"
	if d.n > 1 {
		found = fmt.Sprintf("%d defects were found", d.n)
	}
	return fmt.Errorf("the log is not whole, %s; chatsessions verify looks for all", found)
}

// Printable replaces characters that could drive a terminal: the log may hold anything.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}
