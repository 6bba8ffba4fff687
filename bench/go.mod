module github.com/madcrow-go/madcrow/bench

go 1.25.0

require github.com/madcrow-go/madcrow v0.0.0

replace github.com/madcrow-go/madcrow => ..
