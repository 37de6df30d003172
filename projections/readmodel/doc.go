// Package readmodel answers queries from the read model, or refuses where an answer might
// lack a write that was answered before.
package readmodel
