package audit

import "time"

// WithPatience returns options for a test that does not wait for long.
func (o Options) WithPatience(d time.Duration) Options {
	o.patience = d
	return o
}
