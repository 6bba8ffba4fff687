package codec_test

import (
	"context"
	"fmt"
	"log"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/contrib/codec"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

var (
	server *madcrowtest.Server
	config madcrow.Config
)

func TestMain(m *testing.M) {
	madcrowtest.RunWithRedis(m, func(s *madcrowtest.Server) { server, config = s, s.Config() })
}

func Example() {
	ctx := context.Background()
	r, err := madcrow.Open(ctx, config) // a program calls ConfigFromEnv
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close(ctx)

	type article struct {
		Title string `json:"title"`
		Text  string `json:"text"`
	}
	articles, err := cache.New(r, "articles", cache.Options[article]{
		Codec: codec.Zstd(codec.Msgpack[article]()),
		TTL:   time.Hour,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer articles.Close(ctx)

	text := strings.Repeat("The same procedure as every year. ", 100)
	fmt.Println(articles.Set(ctx, "7", article{"Dinner", text}))
	a, found, err := articles.Get(ctx, "7")
	fmt.Println(a.Title, a.Text == text, found, err)

	length, err := r.Do(ctx, r.B().Strlen().Key("m1:cache:articles:{7}").Build()).Message()
	if err != nil {
		log.Fatal(err)
	}
	n, err := length.AsInt64()
	fmt.Println(len(text), "bytes take less than", (n+99)/100*100, err)
	// Output:
	// <nil>
	// Dinner true true <nil>
	// 3400 bytes take less than 200 <nil>
}
