module github.com/madcrow-go/madcrow/contrib/fx

go 1.25.0

require (
	github.com/madcrow-go/madcrow v0.0.0
	go.uber.org/fx v1.24.0
)

require (
	github.com/maypok86/otter/v2 v2.4.0 // indirect
	github.com/redis/rueidis v1.0.79 // indirect
	go.uber.org/dig v1.19.0 // indirect
	go.uber.org/multierr v1.10.0 // indirect
	go.uber.org/zap v1.26.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
)

replace github.com/madcrow-go/madcrow => ../..
