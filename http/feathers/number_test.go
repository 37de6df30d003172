package feathers

import (
	"math/big"
	"testing"

	"pgregory.net/rapid"

	"chatsessions/domain"
)

func TestWholeNumbers(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "-0": 0, "-0.0": 0, "1": 1, "1e3": 1000, "1E+3": 1000, "1.0": 1, "1.5e1": 15, "10e-1": 1,
		"1564661697125": 1564661697125, "8640000000000000": domain.MaxTime, "8.64e15": domain.MaxTime,
		"0e999999999999999999999": 0, "0.000e-99999999999999": 0, "1000000000000000000000e-20": 10,
	} {
		if n, ok := Whole(text, 0, domain.MaxTime); !ok || n != want {
			t.Errorf("%s is %d, %v; want %d", text, n, ok, want)
		}
	}
	for _, text := range []string{
		"", "-", "-1", "1.5", "1e-1", "8640000000000001", "8.6400000000000001e15", "1e16", "1e999999999999999999",
		"01", "1.", ".5", "1e", "1e+", "+1", " 1", "1 ", "0x1", "1_000", "NaN", "Infinity", "1.00000000000000000001", "１",
	} {
		if n, ok := Whole(text, 0, domain.MaxTime); ok {
			t.Errorf("%q is taken for %d", text, n)
		}
	}
}

// TestWholeNumbersAgreeWithExactArithmetic compares with math/big.
func TestWholeNumbersAgreeWithExactArithmetic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,18})?([eE][+-]?[0-9]{1,2})?`).Draw(t, "number")
		n, ok := Whole(text, -domain.MaxTime, domain.MaxTime)
		exact, _ := new(big.Rat).SetString(text)
		inRange := exact.IsInt() && new(big.Int).Abs(exact.Num()).Cmp(big.NewInt(domain.MaxTime)) <= 0
		if ok != inRange || ok && exact.Num().Int64() != n {
			t.Fatalf("%s: got %d, %v; exactly %s", text, n, ok, exact)
		}
	})
}
