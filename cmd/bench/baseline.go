package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/gofiber/fiber/v2"
	"github.com/redis/go-redis/v9"

	chathttp "chatsessions/http"
)

// baselineCommand as the first argument makes this program a baseline of reads: a
// process of its own, as the service is, that prints its address and serves until
// its standard input ends.
const baselineCommand = "baseline"

// A baseline answers every request to a path with as many bytes as the path says.
type baseline struct {
	Sizes    []int  `required:"" help:"How many bytes the answers have."`
	RedisURL string `help:"Get them from this Redis, in an app that does nothing else; without it, the service's own app sends them from memory."`
}

// pathOf is where a baseline answers with so many bytes.
func pathOf(size int) string { return "/bytes/" + strconv.Itoa(size) }

// serveBaseline is the process.
func serveBaseline(args []string) error {
	var b baseline
	parser, err := kong.New(&b)
	if err != nil {
		return err
	}
	if _, err := parser.Parse(args); err != nil {
		return err
	}
	tuneRuntime()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	serve := b.static
	if b.RedisURL != "" {
		serve = b.redis
	}
	served := make(chan error, 1)
	go func() { served <- serve(l) }() // ends with the process
	fmt.Println("the baseline is ready on http://" + l.Addr().String())
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	select {
	case err := <-served:
		return err
	case <-ended:
		return nil
	}
}

// static serves with the settings and the middlewares of the service.
func (b *baseline) static(l net.Listener) error {
	s := chathttp.NewServer(chathttp.Config{Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	for _, size := range b.Sizes {
		s.Static(pathOf(size), fiber.MIMEApplicationJSON, content(size))
	}
	return s.Serve(l)
}

// redis serves with one GET for each request, as anybody would write it.
func (b *baseline) redis(l net.Listener) error {
	options, err := redis.ParseURL(b.RedisURL)
	if err != nil {
		return err
	}
	client := redis.NewClient(options)
	app := fiber.New(fiber.Config{DisableStartupMessage: true})
	for _, size := range b.Sizes {
		key := "baseline:" + pathOf(size)
		if err := client.Set(context.Background(), key, content(size), 0).Err(); err != nil {
			return err
		}
		app.Get(pathOf(size), func(c *fiber.Ctx) error {
			value, err := client.Get(c.Context(), key).Bytes()
			if err != nil {
				return err
			}
			c.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
			return c.Send(value)
		})
	}
	return app.Listener(l)
}

// content is JSON of so many bytes.
func content(size int) []byte {
	return append(append([]byte{'"'}, bytes.Repeat([]byte{'x'}, max(0, size-2))...), '"')
}

// A baselineProcess is a baseline that runs.
type baselineProcess struct {
	cmd   *exec.Cmd
	addr  string
	input io.Closer
}

func startBaseline(redisURL string, sizes ...int) (*baselineProcess, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, baselineCommand, "--redis-url="+redisURL)
	for _, size := range sizes {
		cmd.Args = append(cmd.Args, "--sizes="+strconv.Itoa(size))
	}
	cmd.Stderr = os.Stderr
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ready, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the baseline did not get ready: %w", err), input.Close(), cmd.Wait())
	}
	_, addr, _ := strings.Cut(strings.TrimSpace(ready), "http://")
	return &baselineProcess{cmd, addr, input}, nil
}

func (p *baselineProcess) stop() error { return errors.Join(p.input.Close(), p.cmd.Wait()) }
