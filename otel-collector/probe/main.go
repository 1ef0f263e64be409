// Command probe checks the health of the collector in the same container: the image has no shell for this.
package main

import (
	"net/http"
	"os"
	"time"
)

func main() {
	client := http.Client{Timeout: 3 * time.Second}
	answer, err := client.Get("http://127.0.0.1:13133/")
	if err != nil || answer.StatusCode != http.StatusOK {
		os.Exit(1)
	}
}
