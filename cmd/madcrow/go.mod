module github.com/madcrow-go/madcrow/cmd/madcrow

go 1.25.0

require github.com/madcrow-go/madcrow v0.0.0

require (
	github.com/alicebob/miniredis/v2 v2.40.0 // indirect
	github.com/klauspost/compress v1.20.4 // indirect
	github.com/maypok86/otter/v2 v2.4.0 // indirect
	github.com/redis/rueidis v1.0.79 // indirect
	github.com/vmihailenco/msgpack/v5 v5.4.1 // indirect
	github.com/vmihailenco/tagparser/v2 v2.0.0 // indirect
	github.com/yuin/gopher-lua v1.1.1 // indirect
	golang.org/x/sys v0.47.0 // indirect
)

require (
	github.com/danielgtaylor/huma/v2 v2.37.2
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/joho/godotenv v1.5.1
	github.com/madcrow-go/madcrow/contrib/codec v0.0.0
	github.com/madcrow-go/madcrow/contrib/embedded v0.0.0
	github.com/spf13/cobra v1.10.2
	github.com/spf13/pflag v1.0.10
)

replace github.com/madcrow-go/madcrow => ../..

replace github.com/madcrow-go/madcrow/contrib/codec => ../../contrib/codec

replace github.com/madcrow-go/madcrow/contrib/embedded => ../../contrib/embedded
