package pubsub

// SetHashing says whether seals can be checked.
func SetHashing(may bool) (restore func()) {
	before := mayHash
	mayHash = may
	return func() { mayHash = before }
}
