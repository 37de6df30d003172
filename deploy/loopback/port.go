// Package loopback reserves ports of the loopback interface, for tests and benchmarks that
// run real servers. A server that is restarted must come back where its clients expect it,
// so its port is chosen before it runs.
//
// # Invariants
//
// No two callers of [Port] get the same port, even in different processes. One mutex
// guards the reserved sockets; the package starts no goroutine.
package loopback

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// Ports are below the range for outgoing connections and port 0 (on Linux from 32768,
// net.ipv4.ip_local_port_range; 49152 by RFC 6335), from which a socket could take the port of
// a server that is not listening.
const first, last = 10_000, 32_767

// reserved holds UDP sockets with the same port numbers, as locks that every process sees
// and that end with the process.
var reserved struct {
	sync.Mutex
	sockets []net.PacketConn
}

// Port returns a TCP port of 127.0.0.1 on which nobody listens. Until this process ends, no
// other caller gets the same port, in any process.
func Port() (int, error) {
	var tried error
	for range 1000 {
		port := first + rand.IntN(last-first+1)
		if tried = reserve(port); tried == nil {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port from %d to %d found: %w", first, last, tried)
}

func reserve(port int) error {
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	socket, err := net.ListenPacket("udp4", addr)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp4", addr)
	if err != nil {
		return errors.Join(err, socket.Close())
	}
	listener.Close()
	reserved.Lock()
	defer reserved.Unlock()
	reserved.sockets = append(reserved.sockets, socket)
	return nil
}
