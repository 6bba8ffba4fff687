package codec_test

import (
	"strconv"
	"testing"
)

// The sizes are printed beside the times.
func BenchmarkCodecs(b *testing.B) {
	for name, c := range pages() {
		for _, words := range []int{10, 1000} {
			v := onePage(words)
			data, err := c.Append(nil, v)
			if err != nil {
				b.Fatal(err)
			}
			b.Run(name+"/words="+strconv.Itoa(words)+"/append", func(b *testing.B) {
				b.ReportAllocs()
				b.ReportMetric(float64(len(data)), "bytes")
				buf := make([]byte, 0, 64<<10)
				for b.Loop() {
					if _, err := c.Append(buf, v); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run(name+"/words="+strconv.Itoa(words)+"/decode", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := c.Decode(data); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
