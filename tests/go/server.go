package main

import (
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// attempt is one arrival at a server.
type attempt struct {
	// Previous is the header grpc-previous-rpc-attempts, empty on a first attempt.
	Previous string `json:"previous"`
	// SecondsLeft is the time until the attempt's deadline; 0 means no deadline.
	SecondsLeft float64 `json:"seconds_left"`
}

// behaviour answers an attempt. The first attempt has the number 1, also after each call of turn. givenUp is closed
// when the caller gives up.
type behaviour func(number int, givenUp <-chan struct{}) error

func always(code codes.Code) behaviour {
	return func(int, <-chan struct{}) error { return status.Error(code, "misbehaves") }
}

func firstOnly(code codes.Code) behaviour {
	return func(number int, _ <-chan struct{}) error {
		if number == 1 {
			return status.Error(code, "misbehaves once")
		}
		return nil
	}
}

func hang(_ int, givenUp <-chan struct{}) error {
	<-givenUp
	return nil
}

// server answers any method with its current behaviour, and records every attempt.
type server struct {
	grpc    *grpc.Server
	health  *health.Server
	address string

	lock     sync.Mutex
	behave   behaviour
	attempts []attempt
}

func startServer(behave behaviour) (*server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{behave: behave, attempts: []attempt{}, health: health.NewServer(), address: listener.Addr().String()}
	s.grpc = grpc.NewServer(grpc.UnknownServiceHandler(s.handle))
	grpc_health_v1.RegisterHealthServer(s.grpc, s.health)
	go s.grpc.Serve(listener)
	return s, nil
}

func (s *server) handle(_ any, stream grpc.ServerStream) error {
	if err := stream.RecvMsg(&emptypb.Empty{}); err != nil {
		return err
	}
	number, behave := s.remember(stream)
	if err := behave(number, stream.Context().Done()); err != nil {
		return err
	}
	return stream.SendMsg(&emptypb.Empty{})
}

func (s *server) remember(stream grpc.ServerStream) (int, behaviour) {
	seen := attempt{}
	if previous := metadata.ValueFromIncomingContext(stream.Context(), "grpc-previous-rpc-attempts"); len(previous) > 0 {
		seen.Previous = previous[0]
	}
	if deadline, ok := stream.Context().Deadline(); ok {
		seen.SecondsLeft = time.Until(deadline).Seconds()
	}
	s.lock.Lock()
	defer s.lock.Unlock()
	s.attempts = append(s.attempts, seen)
	return len(s.attempts), s.behave
}

// arrived adds up the attempts that each server got since its last turn.
func arrived(servers []*server) int {
	count := 0
	for _, each := range servers {
		each.lock.Lock()
		count += len(each.attempts)
		each.lock.Unlock()
	}
	return count
}

// turn changes the behaviour, and returns the attempts since the last turn.
func (s *server) turn(behave behaviour) []attempt {
	s.lock.Lock()
	defer s.lock.Unlock()
	seen := s.attempts
	s.attempts, s.behave = []attempt{}, behave
	return seen
}
