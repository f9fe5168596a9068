// Writes the metrics page of a real client library with native histograms, in text and in protobuf, as page.txt and page.pb:
//
//	go mod init native && go get github.com/prometheus/client_golang@v1.25.0 && go mod tidy && go run .
//
// The tests know what was observed, and count it anew.
package main

import (
	"io"
	"log"
	"math"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

var accept = map[string]string{
	"page.txt": "application/openmetrics-text;version=1.0.0",
	"page.pb":  "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
}

func histogram(name string, options prometheus.HistogramOpts) *prometheus.HistogramVec {
	options.Name, options.Help = name, "Time to answer."
	if options.NativeHistogramBucketFactor == 0 {
		options.NativeHistogramBucketFactor = 1.1 // schema 3
	}
	found := prometheus.NewHistogramVec(options, []string{"route"})
	registry.MustRegister(found)
	return found
}

var registry = prometheus.NewRegistry()

func main() {
	plain := histogram("plain_seconds", prometheus.HistogramOpts{})
	reduced := histogram("reduced_seconds", prometheus.HistogramOpts{NativeHistogramMaxBucketNumber: 8})
	widened := histogram("widened_seconds", prometheus.HistogramOpts{NativeHistogramMaxBucketNumber: 20, NativeHistogramMaxZeroThreshold: 0.3})
	both := histogram("both_seconds", prometheus.HistogramOpts{Buckets: []float64{0.1, 0.25, 1}})
	odd := histogram("odd_seconds", prometheus.HistogramOpts{})
	histogram("empty_seconds", prometheus.HistogramOpts{}).WithLabelValues("/")
	for i := 1; i <= 1000; i++ {
		seconds := float64(i) / 1000
		for _, one := range []*prometheus.HistogramVec{plain, reduced, widened, both} {
			one.WithLabelValues("/").Observe(seconds)
		}
		if i%10 == 0 {
			plain.WithLabelValues("/login").Observe(4 * seconds)
		}
	}
	for _, seconds := range []float64{0, 0, -0.5, -3, 1e-9, 1e9, math.Inf(1), math.NaN(), 0.25, 0.2500001} {
		odd.WithLabelValues("/").Observe(seconds)
	}
	jobs := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "jobs", Help: "Jobs."}, []string{"code"})
	queue := prometheus.NewGauge(prometheus.GaugeOpts{Name: "queue", Help: "Waiting."})
	old := prometheus.NewSummary(prometheus.SummaryOpts{Name: "old_seconds", Help: "Time to answer.", Objectives: map[float64]float64{0.5: 0.01, 0.99: 0.001}})
	registry.MustRegister(jobs, queue, old)
	jobs.WithLabelValues("200").Add(40)
	jobs.WithLabelValues("500").Add(2)
	queue.Set(-3.5)
	old.Observe(0.5)
	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	defer server.Close()
	for name, wanted := range accept {
		request, _ := http.NewRequest(http.MethodGet, server.URL, nil)
		request.Header.Set("Accept", wanted)
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			log.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			log.Fatal(err)
		}
		log.Println(name, answer.Header.Get("Content-Type"), len(body))
		if err := os.WriteFile(name, body, 0o644); err != nil {
			log.Fatal(err)
		}
	}
}
