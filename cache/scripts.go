package cache

import (
	_ "embed"

	"github.com/madcrow-go/madcrow"
)

var (

	//go:embed lua/tag.lua
	luaTag string
	//go:embed lua/lease.lua
	luaLease string
	//go:embed lua/renew.lua
	luaRenew string
	//go:embed lua/set.lua
	luaSet string
	//go:embed lua/store.lua
	luaStore string
	//go:embed lua/touch.lua
	luaTouch string

	scriptTag   = madcrow.NewScript("cache_tag", luaTag)
	scriptLease = madcrow.NewScript("cache_lease", luaLease)
	scriptRenew = madcrow.NewScript("cache_renew", luaRenew)
	scriptSet   = madcrow.NewScript("cache_set", luaSet)
	scriptStore = madcrow.NewScript("cache_store", luaStore)
	scriptTouch = madcrow.NewScript("cache_touch", luaTouch)
)
