package madcrow_test

import (
	"errors"
	"testing"

	"github.com/madcrow-go/madcrow"
)

func TestMust_PanicsWithTheError(t *testing.T) {
	if v := madcrow.Must(7, nil); v != 7 {
		t.Error(v)
	}
	wrong := errors.New("the rate is 0")
	defer func() {
		if p := recover(); p != wrong {
			t.Errorf("%v", p)
		}
	}()
	madcrow.Must(7, wrong)
}
