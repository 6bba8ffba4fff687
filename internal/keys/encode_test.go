package keys_test

import (
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow/internal/keys"
)

// The encodings are part of the stored data: two releases side by side, and the
// Python service, must find the same keys.
func TestEncoding_IsThatOfStoredKeys(t *testing.T) {
	for _, tc := range []struct{ text, standard, subject, login string }{
		{"", "~47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU", "~47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU", ""},
		{"user:7", "user:7", "user:7", "user:7"},
		{"a-b_c.d:e@f/g+h=i,j", "a-b_c.d:e@f/g+h=i,j", "a-b_c.d:e@f/g+h=i,j", "a-b_c.d:e@f/g+h=i,j"},
		{"10.0.0.1|ann", "10.0.0.1|ann", "~Oj6M9gTm-_53OSwo5WAcSCm0deOiO07emTT7yGz1NL8", "10.0.0.1|ann"},
		{"two words", "~oD8dYRZF61OtFsGvVGygeS3IhFBbq1ft6A9NrWuRHTo", "~oD8dYRZF61OtFsGvVGygeS3IhFBbq1ft6A9NrWuRHTo", "two words"},
		{"{7}", "~1WpbX58IJmcoZPvQ8Go8SyIaG-Y1AJe6SetVUSh2f9o", "~1WpbX58IJmcoZPvQ8Go8SyIaG-Y1AJe6SetVUSh2f9o", "~1WpbX58IJmcoZPvQ8Go8SyIaG-Y1AJe6SetVUSh2f9o"},
		{"~7", "~VaUe9wItfPez1GWKVO2HglMDHrZR6oDTReAnnq_lstQ", "~VaUe9wItfPez1GWKVO2HglMDHrZR6oDTReAnnq_lstQ", "~VaUe9wItfPez1GWKVO2HglMDHrZR6oDTReAnnq_lstQ"},
		{"a~7", "~35OnYiW43KxNYlpIPTmrZG1NooOwyZBr4IHiYc9YXCA", "~35OnYiW43KxNYlpIPTmrZG1NooOwyZBr4IHiYc9YXCA", "a~7"},
		{strings.Repeat("x", 96), strings.Repeat("x", 96), strings.Repeat("x", 96), strings.Repeat("x", 96)},
		{strings.Repeat("x", 97), strings.Repeat("x", 97), "~Gajwfut_PQwLc3fjfXLszeFEzv60S-rJwyJxMaUmaI0", strings.Repeat("x", 97)},
		{strings.Repeat("x", 129), "~DsnrM-dFELzdHy6lUgboLyFknFwr7L8rQz60dbNMAb0", "~DsnrM-dFELzdHy6lUgboLyFknFwr7L8rQz60dbNMAb0", strings.Repeat("x", 129)},
		{strings.Repeat("x", 256), "~heYqzXUMTrVre2odZtylv6rF8GJgihqJNBDQKIk2wJo", "~heYqzXUMTrVre2odZtylv6rF8GJgihqJNBDQKIk2wJo", "~heYqzXUMTrVre2odZtylv6rF8GJgihqJNBDQKIk2wJo"},
	} {
		for name, both := range map[string][2]string{
			"Default": {keys.Encode(tc.text), tc.standard},
			"Subject": {keys.Subject.Encode(tc.text), tc.subject},
			"Login":   {keys.Login.Encode(tc.text), tc.login},
		} {
			if both[0] != both[1] {
				t.Errorf("%s of %q: %q, want %q", name, tc.text, both[0], both[1])
			}
		}
	}
}

func TestValidName_IsShortAndPlain(t *testing.T) {
	for name, valid := range map[string]bool{
		"a": true, "Az09-_.": true, strings.Repeat("x", 64): true,
		"": false, strings.Repeat("x", 65): false, "a b": false, "a:b": false, "ä": false, "a{b}": false, "a|b": false, "a\n": false,
	} {
		if keys.ValidName(name) != valid {
			t.Errorf("%q: want %v", name, valid)
		}
	}
}

func FuzzEncode_TwoTextsNeverShareAKeyOrChangeItsSlot(f *testing.F) {
	for _, s := range []string{"", "a", "~", "{}", "}{", "\x00", strings.Repeat("x", 97), strings.Repeat("x", 300)} {
		f.Add(s, "a")
		f.Add(s, s+"}")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, e := range []*keys.Encoding{keys.Default, keys.Subject, keys.Login} {
			x, y := e.Encode(a), e.Encode(b)
			if (x == y) != (a == b) {
				t.Errorf("%q and %q: %q and %q", a, b, x, y)
			}
			if strings.ContainsAny(x, "{}") || len(x) > max(e.MaxPlain(), 44) {
				t.Errorf("%q: %q", a, x)
			}
			if x != a && e.Encode(x) == x {
				t.Errorf("%q has the key of %q", a, x)
			}
		}
	})
}
