package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/service"
)

func newPublish() *cobra.Command {
	o := &oneshot{}
	cmd := &cobra.Command{
		Use:   "publish CHANNEL MESSAGE",
		Short: "Send a message to a channel",
		Long: `Send MESSAGE to CHANNEL, under REDIS_KEY_PREFIX, as it is; '-' reads it from
standard input. It is the message of the HTTP route /pub-sub/publish/{channel}
and of service.Publish: it reaches those who listen now, and no one later.

It prints how many connections received it. That none did is no failure. In a
cluster it counts those of one node.

Reserved channels are refused: those that begin with __, on which servers speak
themselves (a message to __sentinel__:hello can take over a set of Sentinels),
and those of Madcrow's own, which begin with m1:. redis-cli can publish there.` + exits("0 sent"),
		Example: `  madcrow publish news hello
  madcrow publish news - < message.json
  madcrow publish news hello -o json`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageError{fmt.Errorf("wrong number of arguments: %s", c.UseLine())}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check(c); err != nil {
				return err
			}
			message := args[1]
			if message == "-" {
				text, err := io.ReadAll(io.LimitReader(c.InOrStdin(), maxStdin))
				if err != nil {
					return err
				}
				message = string(text)
			}
			return asUsage(o.run(c, func(ctx context.Context, r *madcrow.Redis) error { return o.publish(ctx, c, r, args[0], message) }))
		},
	}
	o.addFlags(cmd)
	return cmd
}

func (o *oneshot) publish(ctx context.Context, c *cobra.Command, r *madcrow.Redis, channel, message string) error {
	n, err := service.New(r, service.Options{}).Publish(ctx, channel, message)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("%d receivers", n)
	if n == 1 {
		text = "1 receiver"
	}
	return o.done(c, text, struct {
		Channel   string `json:"channel"`
		Receivers int64  `json:"receivers"`
	}{channel, n})
}
