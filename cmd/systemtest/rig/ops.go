package rig

import (
	"io"
	"net/http"
	"strconv"
	"strings"
)

// Metrics returns the values of all series, by name and labels as written.
func (s *Service) Metrics() map[string]float64 {
	s.T.Helper()
	status, body := s.Ask("/metrics")
	if status != http.StatusOK {
		s.T.Fatalf("/metrics: %d %s", status, body)
	}
	values := map[string]float64{}
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(strings.TrimSpace(line[at+1:]), 64)
		if err != nil {
			s.T.Fatalf("%q: %v", line, err)
		}
		values[line[:at]] = value
	}
	return values
}

// Ask sends a GET to the ops listener (--ops-listen), whose URL is in the log.
func (s *Service) Ask(path string) (status int, body string) {
	s.T.Helper()
	log := s.Errors.String()
	_, url, _ := strings.Cut(log[max(0, strings.LastIndex(log, "metrics, health and profiles")):], "url=")
	url, _, _ = strings.Cut(url, "\n")
	response, err := HTTPClient.Get(url + path)
	if err != nil {
		s.T.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		s.T.Fatal(err)
	}
	return response.StatusCode, string(content)
}
