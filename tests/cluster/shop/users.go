package main

import (
	"log"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

// users asks the service at the address in USERS so many times a second as RATE says, each time by a new connection, and says every ten
// seconds how it went. It never returns.
func users(address string) {
	rate, err := strconv.Atoi(os.Getenv("RATE"))
	if err != nil || rate < 1 {
		rate = 50
	}
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	var asked, failed atomic.Int64
	go func() {
		for range time.Tick(10 * time.Second) {
			log.Printf("asked %s %d times, %d failed", address, asked.Swap(0), failed.Swap(0))
		}
	}()
	for range time.Tick(time.Second / time.Duration(rate)) {
		go func() {
			asked.Add(1)
			answer, err := client.Get(address)
			if err != nil {
				failed.Add(1)
				return
			}
			answer.Body.Close()
			if answer.StatusCode >= http.StatusInternalServerError {
				failed.Add(1)
			}
		}()
	}
}
