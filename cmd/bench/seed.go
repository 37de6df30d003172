package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"chatsessions/domain"
	"chatsessions/eventstore"
	"chatsessions/eventstore/embedded"
)

// A population is finished telemedicine sessions. A patient created and started each, a doctor
// accepted and finished it; both are participants. Accounts and rooms are UUIDs.
type population struct {
	sessions, patients, doctors int
	shared                      int   // sessions in sharedRoom, evenly spread; the others have rooms of their own
	end                         int64 // time of the last event, epoch milliseconds
}

// crowd is a population with five sessions for each patient and two hundred for each
// doctor, of which at most a thousand share a room.
func crowd(sessions int) population {
	return population{
		sessions: sessions, patients: max(1, sessions/5), doctors: max(1, sessions/200), shared: min(sessions, 1000),
		end: time.Now().UnixMilli(),
	}
}

// stages is the number of a session's events: created, started, accepted, finished.
const stages = 4

// Between two events of a session lie those of stageGap others: some minutes.
const (
	stageGap     = 1024
	sessionEvery = 200 // milliseconds
)

func (p population) events() int { return p.sessions * stages }

// at returns the time of a session's event, epoch milliseconds.
func (p population) at(session, stage int) int64 {
	return p.end - int64(p.sessions-1-session+(stages-1-stage)*stageGap)*sessionEvery
}

// id returns a UUIDv7 of the time of creation, like the service's ids.
func (p population) id(session int) string {
	id := nameBased("session", session)
	var at [8]byte
	binary.BigEndian.PutUint64(at[:], uint64(p.at(session, 0))<<16)
	copy(id[:6], at[:6])
	id[6] = id[6]&0x0f | 0x70
	return id.String()
}

func (p population) patient(session int) string {
	return nameBased("patient", scatter(session, 1, p.patients)).String()
}

func (p population) doctor(session int) string { return doctor(scatter(session, 2, p.doctors)) }

func doctor(n int) string { return nameBased("doctor", n).String() }

func (p population) room(session int) string {
	if p.shared > 0 && session%(p.sessions/p.shared) == 0 && session/(p.sessions/p.shared) < p.shared {
		return sharedRoom
	}
	return nameBased("room", session).String()
}

var sharedRoom = nameBased("room", -1).String()

// nameBased returns a UUID that looks random and is always the same for a name.
func nameBased(kind string, n int) uuid.UUID {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", kind, n))
	id := uuid.UUID(sum[:16])
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}

// scatter assigns sessions to n accounts, as if at random.
func scatter(session int, salt uint64, n int) int {
	return int((uint64(session)*0x9e3779b97f4a7c15*(2*salt+1))>>33) % n
}

// actor returns who creates and starts a session, or accepts and finishes it.
func (p population) actor(session, stage int) string {
	if stage < 2 {
		return p.patient(session)
	}
	return p.doctor(session)
}

// command returns the command that leads to an event of a session.
func (p population) command(session, stage int) domain.Command {
	by := domain.Caller{Account: p.actor(session, stage), Role: domain.RoleAccount}
	change := domain.Change{By: by, Now: p.at(session, stage)}
	if stage == 0 {
		typ, room, participants := domain.TypeTelemed, p.room(session), []string{p.patient(session), p.doctor(session)}
		return domain.Create{ID: p.id(session), By: by, Now: change.Now, Values: domain.Values{Type: &typ, Room: &room, Participants: &participants}}
	}
	following := []domain.Transition{domain.Start, domain.Accept, domain.Finish}
	change.Directives[following[stage-1]].Asked = true
	return change
}

// seed writes the population's events, four for each session, interleaved, to the log of a
// data directory. It does not sync, because no write is answered.
func (p population) seed(ctx context.Context, dataDir string) error {
	server, err := embedded.Start(ctx, embedded.Options{
		StoreDir: filepath.Join(dataDir, "log"), User: "bench", Password: uuid.NewString(),
		Sync: func(string, func() error) error { return nil },
	})
	if err != nil {
		return err
	}
	defer server.Shutdown()
	nc, err := server.Connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	log, err := eventstore.Open(ctx, nc, eventstore.Options{Durability: server, OnlyWriter: true})
	if err != nil {
		return err
	}
	defer log.Close()

	written := progressbar.DefaultSilent(int64(p.events()))
	if term.IsTerminal(int(os.Stderr.Fd())) { //nolint:gosec // a small number
		written = progressbar.Default(int64(p.events()), "seeding")
	}
	// Each writer has sessions of its own, so that their events are in order.
	const writers = 256
	writing, ctx := errgroup.WithContext(ctx)
	for w := range writers {
		writing.Go(func() error {
			for step := w; step < p.sessions+(stages-1)*stageGap; step += writers {
				for stage := range stages {
					session := step - stage*stageGap
					if session < 0 || session >= p.sessions {
						continue
					}
					if err := p.write(ctx, log, session, stage); err != nil {
						return err
					}
					_ = written.Add(1)
				}
			}
			return nil
		})
	}
	return writing.Wait()
}

func (p population) write(ctx context.Context, log *eventstore.Log, session, stage int) error {
	command := p.command(session, stage)
	trace := nameBased("trace", stages*session+stage)
	request := domain.Request{
		SessionID: p.id(session), Actor: p.actor(session, stage), CorrelationID: trace.String(),
		TraceParent: fmt.Sprintf("00-%x-%x-00", trace[:], trace[:8]), New: stage == 0,
	}
	_, err := log.Transact(ctx, request, func(s domain.Session) ([]domain.Event, error) { return domain.Decide(s, command) })
	return err
}
