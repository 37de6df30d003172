package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sys/unix"

	"chatsessions/domain"
	"chatsessions/eventstore"
	"chatsessions/eventstore/blocks"
	"chatsessions/eventstore/embedded"
	"chatsessions/eventstore/envelope"
)

// start measures how long a service with a large embedded log takes to start, beside a bare
// nats-server that reads the same files: after a crash and after a clean end, with nothing
// of the files in memory.
func (b *bench) start(ctx context.Context) error {
	dir := b.dir("start")
	defer func() { _ = os.RemoveAll(dir) }()
	storeDir := filepath.Join(dir, "data", "log")
	progress("writing a log of %d GB", b.LogSize)
	if err := writeLog(storeDir, int64(b.LogSize)<<30); err != nil {
		return err
	}
	index := filepath.Join(blocks.MessagesDir(storeDir, eventstore.StreamName), "index.db")
	f := figures{}
	return b.measure("start", f, func(int) error {
		for _, clean := range []bool{false, true} {
			what := map[bool]string{false: "crash", true: "clean"}[clean]
			run := func(name string, marker string, start func() error) error {
				if !clean {
					if err := os.Remove(marker); err != nil && !errors.Is(err, os.ErrNotExist) {
						return err
					}
				}
				if err := forget(storeDir); err != nil {
					return err
				}
				began := time.Now()
				err := start()
				f.add(what+" "+name, float64(time.Since(began).Milliseconds()))
				return err
			}
			err := run("service", filepath.Join(storeDir, "clean"), func() error {
				s, err := launchService(b.binary, dir)
				if err != nil {
					return err
				}
				b.cleanup(func() error { return terminate(s.cmd) }) // stop would remove the log
				return s.ready()
			})
			if err := errors.Join(err, end(b.cleanups)); err != nil {
				return err
			}
			b.cleanups = nil
			err = run("server", index, func() error { return b.serveLog(ctx, storeDir) })
			if err := errors.Join(err, end(b.cleanups)); err != nil {
				return err
			}
			b.cleanups = nil
		}
		return nil
	},
		ratio(fmt.Sprintf("start after a crash, log of %d GB ÷ nats-server alone", b.LogSize), 1, "ms", "crash service", "crash server", "≤ 1.5"),
		ratio("start after a clean end, the same", 1, "ms", "clean service", "clean server", ""))
}

// serveLog starts a nats-server on a store directory, and returns when it serves the log.
func (b *bench) serveLog(ctx context.Context, storeDir string) error {
	srv, err := server.NewServer(&server.Options{
		JetStream: true, StoreDir: storeDir, Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
	})
	if err != nil {
		return err
	}
	go srv.Start() // returns when the server is up
	b.cleanup(func() error { srv.Shutdown(); srv.WaitForShutdown(); return nil })
	for !srv.ReadyForConnections(50 * time.Millisecond) {
	}
	nc, err := nats.Connect("", nats.InProcessServer(srv))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	_, err = js.Stream(ctx, eventstore.StreamName)
	return err
}

// forget has the system drop what it keeps of the log's files in memory.
func forget(storeDir string) error {
	files, err := blocks.Files(blocks.MessagesDir(storeDir, eventstore.StreamName))
	for _, file := range files {
		f, openErr := os.Open(file.Path)
		if openErr != nil {
			return openErr
		}
		err = errors.Join(err, f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close())
	}
	return err
}

// logSessions is the number of sessions in a log that writeLog writes.
const logSessions = 1000

// writeLog writes a log of about so many bytes as the server would: sessions whose rooms
// change, in turn.
func writeLog(storeDir string, size int64) error {
	msgs := blocks.MessagesDir(storeDir, eventstore.StreamName)
	if err := os.MkdirAll(msgs, 0o700); err != nil {
		return err
	}
	log := blocks.Log{Stream: eventstore.StreamName, Prefix: envelope.SubjectPrefix}
	sessions, positions := make([]domain.Session, logSessions), make([]uint64, logSessions)
	by := domain.Caller{Account: account, Role: domain.RoleAccount}
	var content []byte
	var position uint64
	for written, number := int64(0), 1; written < size; number++ {
		for content = content[:0]; len(content) < 8<<20; {
			n := int(position % logSessions)
			room := fmt.Sprint("room ", position)
			var command domain.Command = domain.Change{By: by, Now: int64(position), Values: domain.Values{Room: &room}}
			if positions[n] == 0 {
				command = domain.Create{ID: uuid.Must(uuid.NewV7()).String(), By: by, Now: int64(position), Values: domain.Values{Room: &room}}
			}
			events, err := domain.Decide(sessions[n], command)
			if err != nil {
				return err
			}
			request := domain.Request{SessionID: events[0].Session.ID, Actor: account}
			m, _ := envelope.Encode(&request, &events[0], uuid.NewString(), positions[n])
			position++
			content = log.Append(content, number, blocks.Record{
				Position: position, Time: int64(position), Subject: []byte(m.Subject), Header: headerOf(m), Data: m.Data,
			})
			sessions[n], positions[n] = events[0].Session, position
		}
		if err := os.WriteFile(blocks.Path(msgs, number), content, 0o600); err != nil {
			return err
		}
		written += int64(len(content))
	}
	info, err := embedded.NewInfo()
	if err != nil {
		return err
	}
	return embedded.WriteStored(storeDir, info, embedded.Durable{First: 1, Position: position}, nil)
}

// headerOf returns the headers of a message as the server stores them.
func headerOf(m *nats.Msg) []byte {
	header := []byte("NATS/1.0\r\n")
	for name, values := range m.Header {
		for _, value := range values {
			header = fmt.Appendf(header, "%s: %s\r\n", name, value)
		}
	}
	return append(header, "\r\n"...)
}
