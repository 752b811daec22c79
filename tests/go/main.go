// Command serviceconfig reads the service config that is rendered for a Go service, and calls test servers through channels
// with this config. It prints one observation for each method and each scenario, such as a server that hangs.
//
//	go build -o serviceconfig . && ./serviceconfig build/prod/policies/knowledge-service/grpc-service-config.json
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
)

// methods returns the full names of the methods in the service config.
func (c channel) methods() ([]string, error) {
	var config struct {
		MethodConfig []struct {
			Name []struct{ Service, Method string }
		}
	}
	if err := json.Unmarshal(c.ServiceConfig, &config); err != nil {
		return nil, err
	}
	var found []string
	for _, entry := range config.MethodConfig {
		for _, name := range entry.Name {
			found = append(found, "/"+name.Service+"/"+name.Method)
		}
	}
	return found, nil
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) != 1 {
		return fmt.Errorf("usage: serviceconfig FILE")
	}
	channels, err := readChannels(arguments[0])
	if err != nil {
		return err
	}
	report, err := observeAll(channels)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(report)
}

// observeAll runs every scenario on every method in parallel, because each call that hangs lasts until its timeout.
func observeAll(channels map[string]channel) (map[string]map[string]observation, error) {
	report := map[string]map[string]observation{}
	var failed error
	var lock sync.Mutex
	var running sync.WaitGroup
	for _, each := range channels {
		methods, err := each.methods()
		if err != nil {
			return nil, err
		}
		for _, method := range methods {
			report[method] = map[string]observation{}
			for name, scenario := range scenarios {
				running.Go(func() {
					seen, err := scenario(each, method)
					lock.Lock()
					defer lock.Unlock()
					if err != nil {
						failed = fmt.Errorf("%s, %s: %w", method, name, err)
					}
					report[method][name] = seen
				})
			}
		}
	}
	running.Wait()
	return report, failed
}
