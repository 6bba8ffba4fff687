// Package codec has further codecs for caches, topics, streams and sessions:
// MessagePack, and compression with Zstandard or S2 around any other codec. Each is
// a [madcrow.Codec].
//
//	pages, err := cache.New(r, "pages", cache.Options[Page]{
//		Codec: codec.Zstd(codec.Msgpack[Page]()),
//	})
//
// [Zstd] makes values smaller, [S2] is some times faster; both leave short
// values as they are. A value that cannot be read is an error of Decode, in a cache
// a miss: one of another codec, of another inner codec, cut or damaged, or one that
// would become larger than it may.
//
// # Ids
//
// An entry carries the id of its codec:
//
//	1 to 9    the library: 1 madcrow.JSON, 2 madcrow.Text, 3 madcrow.Bytes
//	10        Msgpack
//	11        Zstd
//	12        S2
//	13 to 15  later ones of this package
//
// # Format of compressed values
//
//	byte     id of the inner codec
//	byte     form: 0 as it is, 1 compressed
//	uvarint  length before compression (with form 1)
//	…        what the inner codec wrote, or its Zstandard frame or S2 block
package codec
