package madcrow

// Must returns v, and panics with err where there is one. It is for what a program
// makes at its start with options that stand in its source, where an error is a typing
// mistake that the first run shows:
//
//	products := madcrow.Must(cache.New(r, "products", cache.Options[Product]{TTL: time.Minute}))
//
// Options that come from the environment, from flags or from users need the error, and
// so do [Open] and [ConfigFromEnv].
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
