module github.com/madcrow-go/madcrow/contrib/echo

go 1.25.0

require (
	github.com/labstack/echo/v5 v5.4.4
	github.com/madcrow-go/madcrow v0.0.0
)

require (
	github.com/maypok86/otter/v2 v2.4.0 // indirect
	github.com/redis/rueidis v1.0.79 // indirect
	golang.org/x/sys v0.47.0 // indirect
	golang.org/x/time v0.15.0 // indirect
)

replace github.com/madcrow-go/madcrow => ../..
