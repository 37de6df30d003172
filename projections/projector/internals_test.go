package projector

import (
	"context"

	"chatsessions/domain"
)

// begins makes the writers, as project does, and fills what has to be filled.
func (p *Projector) begins(ctx context.Context) error {
	p.writers = nil
	for _, part := range p.partitions {
		w, err := p.resume(ctx, part, false)
		if err != nil {
			return err
		}
		p.writers = append(p.writers, w)
	}
	return p.withTransactions(ctx, p.writers, func() error { return p.fill(ctx, p.writers) })
}

// applyAlone is apply with a writer of its own.
func (p *Projector) applyAlone(ctx context.Context, batch []domain.Entry) error {
	return p.withTransactions(ctx, p.writers, func() error { return p.apply(ctx, p.writers, batch) })
}
