package http

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/gofiber/fiber/v2"

	"chatsessions/domain"
	"chatsessions/domain/query"
	"chatsessions/http/auth"
	"chatsessions/http/conn"
	"chatsessions/http/feathers"
	"chatsessions/http/problem"
)

// list is GET /chat-sessions.
func (s *Server) list(c *fiber.Ctx) error {
	prefer := parsePrefer(c)
	caller := auth.Caller(c)
	list, err := s.parseList(conn.Context(c), caller.Account, conn.Query(c))
	if err != nil {
		return err
	}
	if err := s.awaitPosition(c); err != nil {
		return err
	}
	if !caller.SeesAll() {
		list.Query.VisibleTo = caller.Account
	}
	ctx, cancel := context.WithTimeout(conn.Context(c), readDeadline)
	defer cancel()
	list.Query.Count = prefer.count
	page, err := s.Reads.List(ctx, list.Query)
	switch {
	case errors.Is(err, domain.ErrTooExpensive):
		return tooExpensive(&list.Query, err)
	case errors.Is(err, domain.ErrBusy):
		return problem.Unavailable(err, "there are too many lists to find beside the current writes; try again").Quietly()
	case err != nil:
		return err
	}
	if page.Next != nil {
		cursor, err := s.cursor(ctx, caller.Account, list.Text, *page.Next)
		if err != nil {
			return err
		}
		c.Set(fiber.HeaderLink, `</chat-sessions?$cursor=`+cursor+`>; rel="next"`)
	}
	if page.Total != nil {
		c.Set(headerTotal, strconv.FormatInt(*page.Total, 10))
		c.Set(headerPrefApplied, "count=exact")
	}
	c.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
	c.Set(fiber.HeaderCacheControl, cachePrivately)
	documents := page.Documents
	if len(list.Select) > 0 {
		documents = slices.Clone(documents) // equal lists share them
		for i, document := range documents {
			documents[i] = list.Select.Text(document)
		}
	}
	c.Response().SetBodyRaw(array(documents))
	return nil
}

// array writes JSON values as an array.
func array[T string | []byte](values []T) []byte {
	size := len("[]") + len(values)
	for _, v := range values {
		size += len(v)
	}
	b := append(make([]byte, 0, size), '[')
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, v...)
	}
	return append(b, ']')
}

// parseList reads a list's query, or the query that the cursor in it stands for.
func (s *Server) parseList(ctx context.Context, account, text string) (feathers.List, error) {
	list, err := feathers.ParseList(text)
	if err != nil || list.Cursor == nil {
		return list, err
	}
	text, after, err := s.openCursor(ctx, account, *list.Cursor)
	if err != nil {
		return list, err
	}
	if list, err = feathers.ParseList(text); err == nil && list.Cursor != nil {
		err = badCursor()
	}
	list.Query.After, list.Query.Skip = &after, 0
	return list, err
}

// tooExpensive refuses a query that would have to look at too many sessions.
func tooExpensive(q *query.Query, err error) error {
	var names []string
	for _, f := range q.Filters {
		names = append(names, f.Field)
	}
	if q.Skip > 0 {
		names = append(names, "$skip="+strconv.Itoa(q.Skip))
	}
	found := ""
	if len(names) > 0 {
		found = " by " + strings.Join(names, ", ")
	}
	return problem.Unavailable(err, "the query would have to look at too many sessions to find those%s; narrow it, by createdAt for example", found).
		Quietly() // the query is at fault, and the metrics count the response
}
