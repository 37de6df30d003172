package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
)

// metrics are the service's own metrics, by the name of each series with its labels.
type metrics map[string]float64

// metrics reads them.
func (s *service) metrics(ctx context.Context) (metrics, error) {
	text, err := s.ask(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	m := metrics{}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		end := strings.LastIndexByte(line, ' ')
		if m[line[:max(end, 0)]], err = strconv.ParseFloat(strings.TrimSpace(line[end+1:]), 64); err != nil {
			return nil, fmt.Errorf("metric %q: %w", line, err)
		}
	}
	return m, nil
}

// since returns the growth of a counter.
func (m metrics) since(before metrics, name string) float64 { return m[name] - before[name] }

// mean returns the mean of a histogram's new observations.
func (m metrics) mean(before metrics, name, labels string) float64 {
	return m.since(before, name+"_sum"+labels) / max(1, m.since(before, name+"_count"+labels))
}

// quantile estimates a quantile of new observations, over all labels, like histogram_quantile.
func (m metrics) quantile(before metrics, name string, q float64) float64 {
	counts := map[float64]float64{} // cumulative, by the bucket's upper bound
	for series := range m {
		labels, found := strings.CutPrefix(series, name+"_bucket{")
		if !found {
			continue
		}
		_, bound, _ := strings.Cut(labels, `le="`)
		le, err := strconv.ParseFloat(strings.TrimSuffix(bound, `"}`), 64) // "+Inf" too
		if err != nil {
			continue
		}
		counts[le] += m.since(before, series)
	}
	rank := q * counts[math.Inf(1)]
	lower, below := 0.0, 0.0
	for _, le := range slices.Sorted(maps.Keys(counts)) {
		if counts[le] >= rank {
			if math.IsInf(le, 1) || counts[le] == below {
				return lower
			}
			return lower + (le-lower)*(rank-below)/(counts[le]-below)
		}
		lower, below = le, counts[le]
	}
	return lower
}

// profile profiles a service during a load, if profiles are wanted and there is a name for them.
func (b *bench) profile(ctx context.Context, s *service, name string) func() error {
	var running errgroup.Group
	if b.Profile == "" || name == "" {
		return running.Wait
	}
	seconds := max(1, int(b.Duration.Seconds())-1)
	for kind, path := range map[string]string{"cpu": "profile", "allocs": "allocs", "mutex": "mutex"} {
		running.Go(func() error {
			content, err := s.ask(ctx, fmt.Sprintf("/debug/pprof/%s?seconds=%d", path, seconds))
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(b.Profile, name+"."+kind), content, 0o644)
		})
	}
	return running.Wait
}

// ask requests a path of the ops listener.
func (s *service) ask(ctx context.Context, path string) ([]byte, error) {
	return get(ctx, "http://"+s.ops+path, "")
}

func get(ctx context.Context, url, token string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, response.Status, content)
	}
	return content, err
}
