package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/redis/go-redis/v9"

	"chatsessions/deploy/loopback"
	chathttp "chatsessions/http"
)

// baselineCommand as the first argument makes this process a baseline of reads.
const baselineCommand = "baseline"

// A baseline answers with as many bytes as the path of the request says.
type baseline struct {
	listener net.Listener
	sizes    []int // of the responses
}

// pathOf returns the path of a response of a size.
func pathOf(size int) string { return "/bytes/" + strconv.Itoa(size) }

// serveBaseline serves. Its arguments are its address, the URL of a Redis or "", and the sizes.
func serveBaseline(args []string) error {
	tuneRuntime()
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	b := baseline{listener: l}
	for _, arg := range args[2:] {
		size, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		b.sizes = append(b.sizes, size)
	}
	if redisURL := args[1]; redisURL != "" {
		return b.redis(redisURL)
	}
	return b.static()
}

// static serves from memory, with the settings and the middleware of the service.
func (b *baseline) static() error {
	s := chathttp.NewServer(chathttp.Config{Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	for _, size := range b.sizes {
		s.Static(pathOf(size), fiber.MIMEApplicationJSON, content(size))
	}
	return s.Serve(b.listener)
}

// redis serves with one plain GET for each request, in an app that does nothing else.
func (b *baseline) redis(url string) error {
	options, err := redis.ParseURL(url)
	if err != nil {
		return err
	}
	client := redis.NewClient(options)
	app := fiber.New(fiber.Config{DisableStartupMessage: true})
	for _, size := range b.sizes {
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
	return app.Listener(b.listener)
}

// content returns JSON of a size.
func content(size int) []byte {
	return append(append([]byte{'"'}, bytes.Repeat([]byte{'x'}, max(0, size-2))...), '"')
}

// baseline starts a baseline for the current measurement and returns its address.
func (b *bench) baseline(ctx context.Context, redisURL string, sizes ...int) (addr string, err error) {
	program, err := os.Executable()
	if err != nil {
		return "", err
	}
	port, err := loopback.Port()
	if err != nil {
		return "", err
	}
	addr = fmt.Sprintf("127.0.0.1:%d", port)
	args := []string{baselineCommand, addr, redisURL}
	for _, size := range sizes {
		args = append(args, strconv.Itoa(size))
	}
	cmd, err := launch(ctx, filepath.Join(b.Dir, "baseline-output"), nil, program, args...)
	if err != nil {
		return "", err
	}
	b.cleanup(func() error {
		_ = terminate(cmd) // a signal is how it ends
		return nil
	})
	return addr, listening(ctx, addr)
}
