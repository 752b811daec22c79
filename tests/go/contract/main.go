package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// statusKey is the metadata key with which a request asks for a status. The value is the number of the status code.
const statusKey = "answer-with-status"

// serve answers any method with an empty message, or with the status that the request names, and logs a line. It makes no
// calls, and counts a fallback for each soft call.
func serve(contract *Contract, logger *slog.Logger) grpc.StreamHandler {
	return func(_ any, stream grpc.ServerStream) error {
		if err := stream.RecvMsg(&emptypb.Empty{}); err != nil {
			return err
		}
		for _, call := range contract.softCalls() {
			contract.FellBack(call)
		}
		logger.InfoContext(stream.Context(), "answered")
		for _, named := range metadata.ValueFromIncomingContext(stream.Context(), statusKey) {
			code, err := strconv.ParseUint(named, 10, 32)
			if err != nil {
				return err
			}
			return status.Error(codes.Code(code), "the request asked for this status")
		}
		return stream.SendMsg(&emptypb.Empty{})
	}
}

// run serves gRPC and the probes on free ports until SIGTERM. The argument is the directory of the bundle.
func run(arguments []string) error {
	if len(arguments) != 1 {
		return fmt.Errorf("usage: contract DIRECTORY")
	}
	contract, err := NewContract(arguments[0])
	if err != nil {
		return err
	}
	stopped, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	overGrpc, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	overHttp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := contract.Server(grpc.UnknownServiceHandler(serve(contract, contract.Logger())))
	probes := &http.Server{Handler: contract.Probes()}
	failed := make(chan error, 2)
	go func() { failed <- server.Serve(overGrpc) }()
	go func() { failed <- probes.Serve(overHttp) }()
	contract.Logger().Info("ready", "grpc", overGrpc.Addr().String(), "http", overHttp.Addr().String())
	select {
	case err := <-failed:
		return err
	case <-stopped.Done():
	}
	contract.Drain()
	server.GracefulStop()
	return probes.Shutdown(context.Background())
}
