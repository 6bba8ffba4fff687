package madcrow

import (
	"strconv"
	"strings"
)

// parseInfo reads the lines of INFO that we show. What is missing stays zero.
func parseInfo(text string) (info ServerInfo) {
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		if !ok {
			continue
		}
		switch name {
		case "redis_version":
			info.Version = value
		case "connected_clients":
			info.ConnectedClients, _ = strconv.Atoi(value)
		case "used_memory_human":
			info.UsedMemoryHuman = value
		case "role":
			info.Role = value
		}
	}
	return info
}
