// A reverse proxy as Knative's queue-proxy makes one: net/http/httputil, answers flushed at once, connections kept.
//
// go run . LISTEN TARGET full-duplex|half-duplex
package main

import (
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
)

func main() {
	target, err := url.Parse(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 1000, 1000
	transport.ForceAttemptHTTP2, transport.DisableCompression = false, true
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport, proxy.FlushInterval = transport, -1
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if os.Args[3] == "full-duplex" { // features.knative.dev/http-full-duplex: "Enabled"
			if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
				log.Fatal(err)
			}
		}
		proxy.ServeHTTP(w, r)
	})
	log.Fatal(http.ListenAndServe(os.Args[1], handler))
}
