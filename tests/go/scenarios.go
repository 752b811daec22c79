package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

const (
	patience     = time.Minute // far longer than any rendered timeout, so only the service config ends a call
	failingCalls = 20
	goodCalls    = 100
	batch        = 10
)

type observation struct {
	// Attempts has one list for each server.
	Attempts [][]attempt `json:"attempts"`
	// Statuses has one status for each call.
	Statuses []string `json:"statuses"`
	Seconds  float64  `json:"seconds"`
}

type scenario func(channel, string) (observation, error)

var scenarios = map[string]scenario{
	"unavailable":      oneCall(always(codes.Unavailable)),
	"unavailable once": oneCall(firstOnly(codes.Unavailable)),
	"invalid argument": oneCall(always(codes.InvalidArgument)),
	"hang":             oneCall(hang),
	"budget spent":     func(c channel, method string) (observation, error) { return spendBudget(c, method, 0) },
	"budget refilled":  func(c channel, method string) (observation, error) { return spendBudget(c, method, goodCalls) },
	"two servers":      func(c channel, method string) (observation, error) { return twoServers(c, method, false) },
	"one not serving":  func(c channel, method string) (observation, error) { return twoServers(c, method, true) },
}

func oneCall(behave behaviour) scenario {
	return func(c channel, method string) (observation, error) {
		return with(c, 1, behave, func(client *grpc.ClientConn, servers []*server) (observation, error) {
			return observe(client, method, 1, servers, behave), nil
		})
	}
}

// spendBudget makes failing calls, which use up the retry budget. If good is 0, it returns the observation of these calls.
// Otherwise it makes `good` successful calls. Then it makes one more failing call, and returns the observation of this call.
func spendBudget(c channel, method string, good int) (observation, error) {
	failing := always(codes.Unavailable)
	return with(c, 1, failing, func(client *grpc.ClientConn, servers []*server) (observation, error) {
		seen := observe(client, method, failingCalls, servers, failing)
		if good > 0 {
			servers[0].turn(answer)
			observe(client, method, good, servers, failing)
			seen = observe(client, method, 1, servers, failing)
		}
		return seen, nil
	})
}

// twoServers makes calls until both servers have got calls. Then it returns the next batch in which the first server gets a
// call. If withdrawn is true, the first server reports NOT_SERVING. Then twoServers returns the next batch in which this
// server gets no call.
func twoServers(c channel, method string, withdrawn bool) (observation, error) {
	return with(c, 2, answer, func(client *grpc.ClientConn, servers []*server) (observation, error) {
		for until := time.Now().Add(patience / 2); time.Now().Before(until); {
			seen := observe(client, method, batch, servers, answer)
			if len(seen.Attempts[0]) > 0 && len(seen.Attempts[1]) > 0 {
				break
			}
		}
		if withdrawn {
			servers[0].health.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
		}
		seen := observation{}
		for until := time.Now().Add(patience / 6); time.Now().Before(until); {
			seen = observe(client, method, batch, servers, answer)
			if (len(seen.Attempts[0]) == 0) == withdrawn {
				break
			}
		}
		return seen, nil
	})
}

func answer(int, <-chan struct{}) error { return nil }

// observe makes calls one after the other. After the calls the servers behave as next says.
func observe(client *grpc.ClientConn, method string, calls int, servers []*server, next behaviour) observation {
	seen := observation{}
	began := time.Now()
	for range calls {
		seen.Statuses = append(seen.Statuses, call(client, method, servers))
	}
	seen.Seconds = time.Since(began).Seconds()
	for _, each := range servers {
		seen.Attempts = append(seen.Attempts, each.turn(next))
	}
	return seen
}

// call makes one call. On a busy machine the timeout may end a call before it reaches a server. Then call tries again, up to 5 times.
func call(client *grpc.ClientConn, method string, servers []*server) string {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var err error
	for before, tries := arrived(servers), 0; arrived(servers) == before && tries < 5; tries++ {
		err = client.Invoke(ctx, method, &emptypb.Empty{}, &emptypb.Empty{})
	}
	return status.Code(err).String()
}

// with starts servers, and a client whose only policy is the rendered service config.
func with(
	c channel, count int, behave behaviour, use func(*grpc.ClientConn, []*server) (observation, error),
) (observation, error) {
	var servers []*server
	var addresses []resolver.Address
	for range count {
		started, err := startServer(behave)
		if err != nil {
			return observation{}, err
		}
		defer started.grpc.Stop()
		servers = append(servers, started)
		addresses = append(addresses, resolver.Address{Addr: started.address})
	}
	found := manual.NewBuilderWithScheme("dns")
	found.InitialState(resolver.State{Addresses: addresses})
	client, err := c.dial(grpc.WithResolvers(found), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return observation{}, err
	}
	defer client.Close()
	if err := ready(client); err != nil {
		return observation{}, err
	}
	return use(client, servers)
}

// ready connects first, so that a short timeout covers only the call.
func ready(client *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience/2)
	defer cancel()
	client.Connect()
	for state := client.GetState(); state != connectivity.Ready; state = client.GetState() {
		if !client.WaitForStateChange(ctx, state) {
			return fmt.Errorf("not connected: %s", state)
		}
	}
	return nil
}
