package main

import (
	"encoding/json"
	"fmt"

	"chatsessions/domain"
	"chatsessions/http/auth"
)

type tokenCommand struct {
	Account string `required:"" placeholder:"UID" help:"uid of the token's account."`
	Role    string `required:"" placeholder:"ROLE" help:"account (its own sessions), service (every session, for any account), auditor (reads everything) or admin (everything)."`
	Output  string `enum:"text,json" default:"text" help:"text or json."`
}

func (t tokenCommand) Run(s streams) error {
	caller := domain.Caller{Account: t.Account, Role: domain.Role(t.Role)}
	if err := auth.CheckCaller(caller); err != nil {
		return usageError{err}
	}
	token := auth.NewToken()
	line := auth.TokenLine(token, caller)
	if t.Output == "json" {
		return json.NewEncoder(s.out).Encode(map[string]string{"token": token, "line": line})
	}
	_, err := fmt.Fprintf(s.out, `The token, which is shown only once:
  %s
The line for the tokens file (serve --auth-tokens FILE; a running service reads the file on SIGHUP):
  %s
`, token, line)
	return err
}
