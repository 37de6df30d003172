package audit

import "time"

// What the tests of this package, which are in a package of their own, need to know.
const (
	CompareMembers = compareMembers
	MaxDoubts      = maxDoubts
)

// CompareSession is the script that judges a difference.
var CompareSession = compareSessionScript

// WithPatience returns options for a test that does not wait for long.
func (o VerifyOptions) WithPatience(d time.Duration) VerifyOptions {
	o.patience = d
	return o
}

// Idle reports whether all keys are counted and all that was handed over is compared.
func (v *Verification) Idle() bool {
	select {
	case <-v.count.ended:
		return len(v.batches) == 0
	default:
		return false
	}
}
