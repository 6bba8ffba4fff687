module github.com/madcrow-go/madcrow/examples

go 1.25.0

replace github.com/madcrow-go/madcrow => ..

require (
	github.com/alicebob/miniredis/v2 v2.40.0
	github.com/madcrow-go/madcrow v0.0.0-00010101000000-000000000000
	github.com/redis/rueidis/rueidiscompat v1.0.79
	golang.org/x/crypto v0.55.0
	modernc.org/sqlite v1.58.0
)

require (
	github.com/dustin/go-humanize v1.0.1 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/mattn/go-isatty v0.0.24 // indirect
	github.com/maypok86/otter/v2 v2.4.0 // indirect
	github.com/ncruces/go-strftime v1.0.0 // indirect
	github.com/redis/rueidis v1.0.79 // indirect
	github.com/remyoudompheng/bigfft v0.0.0-20230129092748-24d4a6f8daec // indirect
	github.com/yuin/gopher-lua v1.1.1 // indirect
	golang.org/x/sys v0.47.0 // indirect
	modernc.org/libc v1.75.6 // indirect
	modernc.org/mathutil v1.7.1 // indirect
	modernc.org/memory v1.12.1 // indirect
)
