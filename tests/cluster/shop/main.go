// The service of the cluster tests: it serves, counts what it served, and misbehaves when it is told to.
//
// It is told by environment variables and by the lines KEY=VALUE (or KEY: VALUE) of the file that CONFIG names, which wins and is read
// again every second. See settings for the keys. With USERS it is no service, but the users of one.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"math/rand"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// settings is how the service behaves at this moment.
type settings struct {
	version       string
	config        string  // a name for the content of the file: the value of its key CONFIG_VERSION
	errorRate     float64 // ERROR_RATE: this part of the requests is answered with 500
	latency       time.Duration
	latencyFactor float64       // LATENCY_FACTOR: LATENCY_MS is multiplied by it
	crashAtStart  bool          // CRASH_AT_START: leave with 1 before listening
	crashAfter    time.Duration // CRASH_AFTER_S: leave with 3 so long after the start
	neverReady    bool          // NEVER_READY: /healthz answers 503
	memory        int           // MEMORY_MB: hold so much
}

var (
	now      atomic.Pointer[settings]
	counts   = newCounts()
	ballast  []byte
	started  = time.Now()
	boundary = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5}
)

// grace is how long it goes on serving after SIGTERM: kube-proxy needs a moment to forget it.
const grace = 2 * time.Second

func main() {
	log.SetFlags(log.LstdFlags | log.Lmicroseconds)
	log.SetOutput(os.Stdout)
	if address := os.Getenv("USERS"); address != "" {
		users(address)
	}
	follow()
	if now.Load().crashAtStart {
		log.Print("ERROR told to crash at start")
		os.Exit(1)
	}
	go func() {
		for range time.Tick(time.Second) {
			follow()
		}
	}()
	go crashLater()
	serve()
}

func serve() {
	mux := http.NewServeMux()
	mux.HandleFunc("/", answer)
	mux.HandleFunc("/version", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, now.Load().version) })
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) { counts.write(w) })
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if now.Load().neverReady {
			http.Error(w, "told to be never ready", http.StatusServiceUnavailable)
		}
	})
	listener, err := net.Listen("tcp", ":"+value("PORT", "8080"))
	if err != nil {
		log.Fatalf("ERROR %v", err)
	}
	server := &http.Server{Handler: mux}
	log.Printf("version %s listens on %s", now.Load().version, listener.Addr())
	go func() {
		told := make(chan os.Signal, 1)
		signal.Notify(told, syscall.SIGTERM, syscall.SIGINT)
		<-told
		log.Print("told to leave")
		time.Sleep(grace)
		ctx, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		_ = server.Shutdown(ctx)
		os.Exit(0)
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		log.Fatalf("ERROR %v", err)
	}
	select {}
}

// answer serves a page: late, and wrongly as often as it was told.
func answer(w http.ResponseWriter, r *http.Request) {
	began, told, code := time.Now(), now.Load(), http.StatusOK
	time.Sleep(time.Duration(float64(told.latency) * told.latencyFactor))
	if r.URL.Path != "/" && r.URL.Path != "/login" {
		code = http.StatusNotFound
	} else if rand.Float64() < told.errorRate {
		code = http.StatusInternalServerError
		log.Printf("ERROR %s %s answered 500", r.Method, r.URL.Path)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Version", told.version)
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]string{"version": told.version, "config": told.config, "pod": os.Getenv("HOSTNAME"), "path": r.URL.Path})
	counts.add(code, time.Since(began).Seconds())
}

func crashLater() {
	for range time.Tick(100 * time.Millisecond) {
		if after := now.Load().crashAfter; after > 0 && time.Since(started) > after {
			log.Print("ERROR told to crash by now")
			os.Exit(3)
		}
	}
}

// follow reads the environment and the file, and does as they say from then on.
func follow() {
	said := map[string]string{}
	if path := os.Getenv("CONFIG"); path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			log.Printf("ERROR %v", err)
			if now.Load() != nil {
				return
			}
		}
		for _, line := range strings.Split(string(text), "\n") {
			if at := strings.IndexAny(line, "=:"); at > 0 && !strings.HasPrefix(line, "#") {
				said[strings.TrimSpace(line[:at])] = strings.Trim(strings.TrimSpace(line[at+1:]), `"'`)
			}
		}
	}
	get := func(key, otherwise string) string {
		if found, ok := said[key]; ok {
			return found
		}
		return value(key, otherwise)
	}
	number := func(key string, otherwise float64) float64 {
		text := get(key, strconv.FormatFloat(otherwise, 'g', -1, 64))
		found, err := strconv.ParseFloat(text, 64)
		if err != nil {
			log.Printf("ERROR %s=%s is no number", key, text)
			return otherwise
		}
		return found
	}
	yes := func(key string) bool { return get(key, "") == "true" || get(key, "") == "1" }
	fresh := &settings{
		version:       get("VERSION", "1"),
		config:        get("CONFIG_VERSION", ""),
		errorRate:     number("ERROR_RATE", 0),
		latency:       time.Duration(number("LATENCY_MS", 2) * float64(time.Millisecond)),
		latencyFactor: number("LATENCY_FACTOR", 1),
		crashAtStart:  yes("CRASH_AT_START"),
		crashAfter:    time.Duration(number("CRASH_AFTER_S", 0) * float64(time.Second)),
		neverReady:    yes("NEVER_READY"),
		memory:        int(number("MEMORY_MB", 0)),
	}
	if before := now.Swap(fresh); before != nil && *before != *fresh {
		log.Printf("settings changed: %+v", *fresh)
	}
	if wanted := fresh.memory << 20; wanted != len(ballast) {
		ballast = make([]byte, wanted)
		for at := 0; at < wanted; at += 4096 {
			ballast[at] = 1
		}
	}
}

func value(key, otherwise string) string {
	if found, ok := os.LookupEnv(key); ok {
		return found
	}
	return otherwise
}

// tally is what the metrics page says.
type tally struct {
	sync.Mutex
	codes   map[int]int
	buckets []int
	sum     float64
	all     int
}

func newCounts() *tally {
	return &tally{codes: map[int]int{200: 0, 500: 0}, buckets: make([]int, len(boundary))}
}

func (t *tally) add(code int, seconds float64) {
	t.Lock()
	defer t.Unlock()
	t.codes[code]++
	t.all++
	t.sum += seconds
	for at, bound := range boundary {
		if seconds <= bound {
			t.buckets[at]++
		}
	}
}

func (t *tally) write(w http.ResponseWriter) {
	t.Lock()
	defer t.Unlock()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	fmt.Fprint(w, "# HELP http_requests_total Requests answered.\n# TYPE http_requests_total counter\n")
	for code, count := range t.codes {
		fmt.Fprintf(w, "http_requests_total{code=\"%d\"} %d\n", code, count)
	}
	fmt.Fprint(w, "# HELP http_request_duration_seconds Time to answer.\n# TYPE http_request_duration_seconds histogram\n")
	for at, bound := range boundary {
		fmt.Fprintf(w, "http_request_duration_seconds_bucket{le=\"%g\"} %d\n", bound, t.buckets[at])
	}
	fmt.Fprintf(w, "http_request_duration_seconds_bucket{le=\"+Inf\"} %d\n", t.all)
	fmt.Fprintf(w, "http_request_duration_seconds_sum %g\nhttp_request_duration_seconds_count %d\n", t.sum, t.all)
	fmt.Fprint(w, "# HELP process_start_time_seconds When the process started.\n# TYPE process_start_time_seconds gauge\n")
	fmt.Fprintf(w, "process_start_time_seconds %.3f\n", float64(started.UnixMilli())/1000)
	fmt.Fprint(w, "# HELP process_resident_memory_bytes Resident memory.\n# TYPE process_resident_memory_bytes gauge\n")
	fmt.Fprintf(w, "process_resident_memory_bytes %d\n", resident())
}

func resident() int {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, pages int
	_, _ = fmt.Sscan(string(text), &size, &pages)
	return pages * os.Getpagesize()
}
