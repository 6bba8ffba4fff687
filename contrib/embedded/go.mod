module github.com/madcrow-go/madcrow/contrib/embedded

go 1.25.0

require (
	github.com/alicebob/miniredis/v2 v2.40.0
	github.com/madcrow-go/madcrow v0.0.0
	github.com/redis/rueidis v1.0.79
)

require (
	github.com/maypok86/otter/v2 v2.4.0 // indirect
	github.com/yuin/gopher-lua v1.1.1 // indirect
	golang.org/x/sys v0.47.0 // indirect
)

replace github.com/madcrow-go/madcrow => ../..
