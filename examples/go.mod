module github.com/madcrow-go/madcrow/examples

go 1.25.0

replace github.com/madcrow-go/madcrow => ..

require (
	github.com/alicebob/miniredis/v2 v2.40.0
	github.com/madcrow-go/madcrow v0.0.0-00010101000000-000000000000
	github.com/redis/rueidis/rueidiscompat v1.0.79
)

require (
	github.com/redis/rueidis v1.0.79 // indirect
	github.com/yuin/gopher-lua v1.1.1 // indirect
	golang.org/x/sys v0.47.0 // indirect
)
