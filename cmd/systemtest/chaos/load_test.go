package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	chaosClients  = 24 // that call at the same time
	chaosSessions = 24 // that they share; each is replaced when it is over
	// restful is the longest pause between two requests of a client. It bounds the
	// log of a round, and with it how long a service takes to start.
	restful = 80 * time.Millisecond
	// clientPatience is the longest that a client waits for an answer. Some clients wait
	// less and disconnect while their request is still in flight.
	clientPatience = 8 * time.Second
	// retriedWithin bounds how long a client repeats a request with a key.
	retriedWithin = 40 * time.Second
	// abandonedWithin is more than the service works on a request that its client
	// has given up.
	abandonedWithin = 8 * time.Second
	// healedID is the request id of the writes that find out whether a node answers.
	healedID = "healed"
)

// A shared session is one that several clients work on.
type sharedSession struct {
	*life
	path  atomic.Pointer[string] // nil until somebody knows it
	seen  atomic.Pointer[view]   // some recent view
	steps atomic.Int64
	rooms atomic.Int64
}

// longestLife is how many operations a session is good for; after its end it gets
// some more.
const longestLife = 60

func (s *sharedSession) over() bool {
	steps := s.steps.Load()
	v := s.seen.Load()
	if v == nil && steps > 10 {
		return true // its POST came to nothing, as it seems
	}
	if v != nil && v.State == "finished" {
		return steps%8 == 0
	}
	return steps > longestLife
}

// A loadClient is one of the clients: it works on the shared sessions through the
// links to all nodes.
type loadClient struct {
	*rand.Rand
	history *history
	nodes   []*node
	account string
	number  int
	count   int // of its operations
	shared  *[chaosSessions]atomic.Pointer[sharedSession]
	http    *http.Client
}

func newLoadClient(r *round, nodes []*node, number int) *loadClient {
	stream := fnv.New64()
	fmt.Fprintf(stream, "client %d %d", number, r.number)
	return &loadClient{
		Rand:    rand.New(rand.NewPCG(r.seed, stream.Sum64())), //nolint:gosec // a load that can be repeated
		history: r.history, nodes: nodes, number: number, account: fmt.Sprintf("client-%d", number), shared: &r.shared,
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2}},
	}
}

// run works until ctx ends. What it has begun then, it brings to an end.
func (c *loadClient) run(ctx context.Context) {
	defer c.http.CloseIdleConnections()
	for ctx.Err() == nil {
		slot := &c.shared[min(c.IntN(chaosSessions), c.IntN(chaosSessions))] // some are busier than others
		s := slot.Load()
		if s == nil || s.over() {
			c.count++
			tag := fmt.Sprintf("tag-%d-%d", c.number, c.count)
			fresh := &sharedSession{life: c.history.life(tag)}
			if slot.CompareAndSwap(s, fresh) {
				c.perform(fresh, c.creation(tag))
			}
			continue
		}
		s.steps.Add(1)
		resolved := c.perform(s, c.next(s))
		pause := time.Duration(c.Int64N(int64(restful)))
		if !resolved {
			pause += 100 * time.Millisecond
		}
		sleep(ctx, pause)
	}
}

// creation is a POST; some bring a history along.
func (c *loadClient) creation(tag string) *operation {
	o := &operation{method: "POST", client: c.account}
	o.body = fmt.Sprintf(`{"participants":[%q,"guest"]}`, tag)
	switch c.IntN(4) {
	case 0:
		o.change.directives = []string{"start", "accept"}
		o.body = fmt.Sprintf(`{"participants":[%q,"guest"],"createdAt":1,"startedAt":2,"acceptedAt":3}`, tag)
	case 1:
		o.change.room = "first"
		o.body = fmt.Sprintf(`{"participants":[%q,"guest"],"room":"first"}`, tag)
	}
	return c.perhapsKeyed(o)
}

func (c *loadClient) perhapsKeyed(o *operation) *operation {
	if c.IntN(2) == 0 {
		c.count++
		o.key = fmt.Sprintf("key-%d-%d", c.number, c.count)
	}
	return o
}

// next chooses what to do with a session.
func (c *loadClient) next(s *sharedSession) *operation {
	o := &operation{client: c.account}
	seen := s.seen.Load()
	if n := c.IntN(100); n < 15 || s.path.Load() == nil {
		o.method = "LIST"
		if c.IntN(3) == 0 {
			o.in = []string{"created", "started", "accepted", "rejected", "finished"}[c.IntN(5)]
		}
		return o
	} else if n < 50 {
		o.method = "GET"
		if seen != nil && c.IntN(4) == 0 {
			o.not = seen.Version
		}
		return o
	}
	o.method = "PATCH"
	if seen != nil && c.IntN(4) == 0 {
		o.ifMatch = seen.Version
	}
	members := map[string]any{}
	switch c.IntN(12) {
	case 0: // nothing that it knows
		members["seen"] = true
	case 1, 2, 3:
		o.change.room = fmt.Sprintf("room %d", s.rooms.Add(1))
		members["room"] = o.change.room
	case 4:
		o.change.reason = fmt.Sprintf("because of %d", s.rooms.Add(1))
		members["finishReason"] = o.change.reason
	default:
		o.change.directives = c.directives(seen)
		for _, d := range o.change.directives {
			members[d] = true
		}
		if c.IntN(4) == 0 {
			o.change.room = fmt.Sprintf("room %d", s.rooms.Add(1))
			members["room"] = o.change.room
		}
	}
	for i, d := range o.change.directives {
		if d == "reject" {
			o.change.rejectReason = fmt.Sprintf("no %d", i)
			members["reject"] = o.change.rejectReason
		}
	}
	body, _ := json.Marshal(members)
	o.body = string(body)
	if o.events() > 0 {
		o = c.perhapsKeyed(o)
	}
	return o
}

// directives are one step or several; most often legal ones, as far as the client
// knows.
func (c *loadClient) directives(seen *view) []string {
	all := [][]string{{"start"}, {"accept"}, {"reject"}, {"finish"}, {"start", "accept"}, {"start", "reject"}, {"accept", "finish"}, {"start", "accept", "finish"}}
	directives := all[c.IntN(len(all))]
	for range 3 {
		if seen == nil {
			break
		}
		if _, legal := endOf(seen.State, directives); legal {
			break
		}
		directives = all[c.IntN(len(all))]
	}
	return directives
}

// perform makes attempts until the operation is resolved: one without a key is after
// the first, whatever came of it. It returns false when it has not been resolved.
func (c *loadClient) perform(s *sharedSession, o *operation) bool {
	s.add(o)
	deadline := time.Now().Add(retriedWithin)
	node := c.IntN(len(c.nodes))
	for {
		if len(o.attempts) > 0 {
			c.history.tally.again.Add(1)
			<-time.After(time.Duration(c.Int64N(int64(200*time.Millisecond))) + 50*time.Millisecond)
			node = c.IntN(len(c.nodes)) // perhaps the other knows
		}
		c.count++
		a := chaosAttempt{request: fmt.Sprintf("%s.%d.%d", s.tag, c.number, c.count), node: node}
		c.send(s, o, &a)
		o.attempts = append(o.attempts, a)
		c.history.tally.classes[a.class].Add(1)
		switch a.class {
		case answered, refused, undefined:
			if a.view != nil {
				s.seen.Store(a.view)
				path := "/chat-sessions/" + a.view.ID
				s.path.Store(&path)
			}
			if o.key != "" && a.class == answered && c.IntN(10) == 0 && time.Now().Before(deadline) {
				continue // again, though it is known: the answer has to be the same
			}
			return true
		}
		if o.key == "" || time.Now().After(deadline) {
			return false
		}
	}
}

// send makes one attempt and fills in what came of it.
func (c *loadClient) send(s *sharedSession, o *operation, a *chaosAttempt) {
	patience := clientPatience/8 + time.Duration(c.Int64N(int64(clientPatience*7/8)))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	request, err := c.request(ctx, s, o, a)
	if err != nil {
		panic(err)
	}
	a.call = c.history.now()
	response, err := c.http.Do(request)
	var content []byte
	if err == nil {
		content, err = io.ReadAll(response.Body)
		response.Body.Close()
	}
	if err != nil {
		c.history.abandon()
		a.class, a.back = noAnswer, forever
		return
	}
	a.back = c.history.now()
	if err := a.read(s.life, o, response, content); err != nil {
		a.class, a.explanation = undefined, fmt.Sprintf("%v: %v %s", err, response.Header, content)
	}
}

func (c *loadClient) request(ctx context.Context, s *sharedSession, o *operation, a *chaosAttempt) (*http.Request, error) {
	method, target := o.method, "/chat-sessions"
	switch method {
	case "PATCH", "GET":
		target = *s.path.Load()
	case "LIST":
		method, target = "GET", target+"?participants="+s.tag
		if o.in != "" {
			target += "&state=" + o.in
		}
	}
	var body io.Reader
	if o.writes() {
		// Without a way to read the body again, net/http does not repeat a request with
		// a key behind our back.
		body = struct{ io.Reader }{strings.NewReader(o.body)}
	}
	request, err := http.NewRequestWithContext(ctx, method, c.nodes[a.node].clients.through("http://service")+target, body)
	if err != nil {
		return nil, err
	}
	request.ContentLength = int64(len(o.body))
	request.Header.Set("Authorization", "Bearer dev-service-"+o.client)
	request.Header.Set("X-Request-Id", a.request)
	if o.writes() {
		request.Header.Set("Content-Type", "application/json")
	}
	if o.key != "" {
		request.Header.Set("Idempotency-Key", o.key)
	}
	if o.ifMatch > 0 {
		request.Header.Set("If-Match", strconv.Quote(strconv.FormatUint(o.ifMatch, 10)))
	}
	if o.not > 0 {
		request.Header.Set("If-None-Match", strconv.Quote(strconv.FormatUint(o.not, 10)))
	}
	return request, nil
}

// read takes what the model needs from an answer. Its error is an answer that the
// contract does not have.
func (a *chaosAttempt) read(l *life, o *operation, response *http.Response, content []byte) (err error) {
	a.status = response.StatusCode
	if etag := response.Header.Get("ETag"); etag != "" {
		if a.version, err = strconv.ParseUint(strings.Trim(etag, `"`), 10, 64); err != nil {
			return err
		}
	}
	switch a.status {
	case http.StatusOK:
		if o.method == "LIST" {
			if content = bytes.TrimSuffix(bytes.TrimPrefix(content, []byte("[")), []byte("]")); len(content) == 0 {
				return nil
			}
		}
		if a.view, err = l.view(content); err != nil {
			return err
		}
		if o.writes() {
			if a.position, err = strconv.ParseUint(response.Header.Get("Chat-Sessions-Position"), 10, 64); err != nil {
				return err
			}
		}
		if o.method != "LIST" && a.view.Version != a.version {
			return fmt.Errorf("the ETag is of version %d", a.version)
		}
		return nil
	case http.StatusServiceUnavailable:
		if response.Header.Get("Retry-After") == "" {
			return fmt.Errorf("no Retry-After")
		}
		a.class = notDone
		if !o.writes() {
			return nil
		}
		var problem struct{ MayHaveBeenWritten *bool }
		if err := json.Unmarshal(content, &problem); err != nil || problem.MayHaveBeenWritten == nil {
			return fmt.Errorf("it does not say whether it was written: %w", err)
		}
		if *problem.MayHaveBeenWritten {
			a.class = perhaps
		}
		return nil
	case http.StatusConflict:
		var problem struct{ State string }
		err := json.Unmarshal(content, &problem)
		a.class, a.state = refused, problem.State
		return err
	case http.StatusNotModified, http.StatusNotFound, http.StatusPreconditionFailed, http.StatusUnprocessableEntity:
		a.class = refused
		return nil
	}
	return fmt.Errorf("status %d", a.status)
}
