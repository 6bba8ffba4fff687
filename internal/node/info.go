package node

import (
	"net"
	"path"
	"strconv"
	"strings"
	"time"
)

// ServerInfo is a part of the server's INFO.
type ServerInfo struct {
	Name, Version    string // the server's own, not of the Redis it stands in for
	ConnectedClients int
	UsedMemoryHuman  string
	Uptime           time.Duration // in whole seconds
	MaxMemoryPolicy  string
	EvictedKeys      int64
	Role             string // "master" or "slave", in Redis' words
	Replicas         []Replica
	At               time.Time
}

// Replica is a replica as its master sees it.
type Replica struct {
	Address, State string
	Lag            time.Duration
}

// parseInfo reads the lines of INFO that we show. What is missing stays zero.
func parseInfo(text string) (info ServerInfo) {
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		if !ok {
			continue
		}
		switch name {
		case "redis_version": // others say here for which Redis they stand in
			if info.Name == "" {
				info.Name, info.Version = "redis", value
			}
		case "valkey_version", "dragonfly_version", "garnet_version", "kvrocks_version":
			info.Name = strings.TrimSuffix(name, "_version")
			info.Version = strings.TrimPrefix(value, "df-v") // of Dragonfly
		case "executable":
			if strings.Contains(path.Base(value), "keydb") && info.Name == "redis" {
				info.Name = "keydb" // its redis_version is its own
			}
		case "connected_clients":
			info.ConnectedClients, _ = strconv.Atoi(value)
		case "used_memory_human":
			info.UsedMemoryHuman = value
		case "uptime_in_seconds":
			seconds, _ := strconv.Atoi(value)
			info.Uptime = time.Duration(seconds) * time.Second
		case "maxmemory_policy":
			info.MaxMemoryPolicy = value
		case "evicted_keys":
			info.EvictedKeys, _ = strconv.ParseInt(value, 10, 64)
		case "role":
			info.Role = value
		default:
			if n, ok := strings.CutPrefix(name, "slave"); ok && n != "" && n[0] >= '0' && n[0] <= '9' {
				info.Replicas = append(info.Replicas, parseReplica(value))
			}
		}
	}
	return info
}

// parseReplica reads "ip=…,port=…,state=online,offset=…,lag=0".
func parseReplica(text string) (r Replica) {
	var ip, port string
	for part := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(part, "=")
		switch name {
		case "ip":
			ip = value
		case "port":
			port = value
		case "state":
			r.State = value
		case "lag":
			seconds, _ := strconv.Atoi(value)
			r.Lag = time.Duration(seconds) * time.Second
		}
	}
	r.Address = net.JoinHostPort(ip, port)
	return r
}
