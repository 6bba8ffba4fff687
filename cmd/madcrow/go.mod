module github.com/madcrow-go/madcrow/cmd/madcrow

go 1.25.0

require github.com/madcrow-go/madcrow v0.0.0

replace github.com/madcrow-go/madcrow => ../..

replace github.com/madcrow-go/madcrow/contrib/embedded => ../../contrib/embedded
