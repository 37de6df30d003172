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

// baselineCommand as the first argument turns this program into a baseline of reads: like
// the service, a process of its own. It prints its address and serves until its standard
// input ends.
const baselineCommand = "baseline"

// A baseline answers with as many bytes as the path of the request says.
type baseline struct {
	Sizes    []int  `required:"" help:"Sizes of the responses, in bytes."`
	RedisURL string `help:"Fetch them from this Redis, in an app that does nothing else. Default: send them from memory, in the service's own app."`
}

// pathOf returns the path of a response of a size.
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
	ended := make(chan error, 2)
	go func() { ended <- serve(l) }() // both goroutines end with the process
	fmt.Println("the baseline is ready on http://" + l.Addr().String())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		ended <- nil
	}()
	return <-ended
}

// static serves with the settings and the middleware of the service.
func (b *baseline) static(l net.Listener) error {
	s := chathttp.NewServer(chathttp.Config{Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	for _, size := range b.Sizes {
		s.Static(pathOf(size), fiber.MIMEApplicationJSON, content(size))
	}
	return s.Serve(l)
}

// redis serves with one plain GET for each request.
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

// content returns JSON of a size.
func content(size int) []byte {
	return append(append([]byte{'"'}, bytes.Repeat([]byte{'x'}, max(0, size-2))...), '"')
}

// baseline starts a baseline for the current measurement and returns its address.
func (b *bench) baseline(redisURL string, sizes ...int) (addr string, err error) {
	program, err := os.Executable()
	if err != nil {
		return "", err
	}
	cmd := exec.Command(program, baselineCommand, "--redis-url="+redisURL)
	for _, size := range sizes {
		cmd.Args = append(cmd.Args, "--sizes="+strconv.Itoa(size))
	}
	cmd.Stderr = os.Stderr
	input, err := cmd.StdinPipe()
	if err != nil {
		return "", err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	b.cleanup(func() error { return errors.Join(input.Close(), cmd.Wait()) })
	ready, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("the baseline is not ready: %w", err)
	}
	_, addr, _ = strings.Cut(strings.TrimSpace(ready), "http://")
	return addr, nil
}
