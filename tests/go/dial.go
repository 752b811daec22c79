package main

import (
	"encoding/json"
	"os"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/health" // without it, gRPC does not check the health of callees
)

// channel is the entry of one callee in grpc-service-config.json.
type channel struct {
	Target        string          `json:"target"`
	ServiceConfig json.RawMessage `json:"serviceConfig"`
}

func readChannels(path string) (map[string]channel, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var channels map[string]channel
	return channels, json.Unmarshal(text, &channels)
}

// dial opens the channel to a callee. It ignores a service config from DNS, so that only the file counts.
func (c channel) dial(options ...grpc.DialOption) (*grpc.ClientConn, error) {
	policies := grpc.WithDefaultServiceConfig(string(c.ServiceConfig))
	return grpc.NewClient(c.Target, append(options, policies, grpc.WithDisableServiceConfig())...)
}
