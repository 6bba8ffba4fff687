package ratelimit

import (
	"math/big"
	"math/rand/v2"
	"testing"
	"time"
)

func TestDecision_TokensAreExactlyThoseThatFit(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 100_000 {
		p := plan{kind: kindGCRA, limit: 1 + rng.Int64N(maxLogged), rate: Rate{Limit: 1 + rng.Int64N(maxLimit>>rng.IntN(30)), Window: MinWindow + time.Duration(rng.Int64N(int64(MaxWindow)>>rng.IntN(28))).Truncate(time.Microsecond)}}
		whole, rest := rng.Int64N(32e12>>rng.IntN(40)), rng.Int64N(p.rate.Limit)
		free := new(big.Int).Mul(big.NewInt(whole), big.NewInt(p.rate.Limit))
		free.Add(free, big.NewInt(rest)).Quo(free, big.NewInt(p.rate.micros()))
		want := p.limit
		if free.IsInt64() {
			want = min(want, free.Int64())
		}
		if got := p.tokens(whole, rest); got != want {
			t.Fatalf("%+v, %d and %d/limit: %d tokens, want %d", p.rate, whole, rest, got, want)
		}
	}
}
