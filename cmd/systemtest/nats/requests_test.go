package nats

import (
	"fmt"

	"github.com/nats-io/nats-server/v2/server"
)

// of fills the stream, and what else is needed, into a subject of the server's API.
func of(subject string, rest ...any) string {
	return fmt.Sprintf(subject, append([]any{stream}, rest...)...)
}

// consumerThat asks for a consumer that pushes to a subject.
func consumerThat(config, deliver string) string {
	return fmt.Sprintf(`{"stream_name":%q,"config":{%s,"ack_policy":"none","deliver_policy":"all","deliver_subject":%q}}`, stream, config, deliver)
}

// forbiddenRequests are subjects of the server's API, and what is asked of them.
var forbiddenRequests = []struct{ subject, body string }{
	{server.JSApiAccountInfo, ""},
	{server.JSApiStreams, ""},
	{server.JSApiStreamList, ""},
	{of(server.JSApiStreamInfoT), ""},
	{of(server.JSApiStreamUpdateT), `{"name":"CHAT_SESSIONS","subjects":["chat-sessions.*"],"max_msgs":1}`},
	{of(server.JSApiStreamPurgeT), ""},
	{of(server.JSApiStreamDeleteT), ""},
	{of(server.JSApiMsgDeleteT), `{"seq":1}`},
	{of(server.JSApiMsgGetT), `{"seq":1}`},
	{of(server.JSDirectMsgGetT), `{"seq":1}`},
	{of(server.JSDirectGetLastBySubjectT, "chat-sessions.x"), ""},
	{of(server.JSApiStreamSnapshotT), `{"deliver_subject":"snapshot"}`},
	{of(server.JSApiStreamRestoreT), `{"config":{"name":"CHAT_SESSIONS","subjects":["chat-sessions.*"]}}`},
	{of(server.JSApiStreamLeaderStepDownT), ""},
	{of(server.JSApiStreamRemovePeerT), `{"peer":"chat-sessions-1"}`},
	{of(server.JSApiStreamEvacuatePeerT), `{"peer":"chat-sessions-1"}`},
	{of(server.JSApiStreamCancelMoveT), ""},

	// A copy of the log, or a stream that takes its subjects.
	{fmt.Sprintf(server.JSApiStreamCreateT, "MIRROR"), `{"name":"MIRROR","mirror":{"name":"CHAT_SESSIONS"}}`},
	{fmt.Sprintf(server.JSApiStreamCreateT, "SOURCE"), `{"name":"SOURCE","sources":[{"name":"CHAT_SESSIONS"}],"republish":{"dest":"chat-sessions.x"}}`},
	{fmt.Sprintf(server.JSApiStreamCreateT, "TAKER"), `{"name":"TAKER","subjects":["chat-sessions.>"]}`},

	// Each way to make a consumer, and to turn the own one into one that pushes.
	{of(server.JSApiConsumerCreateT), consumerThat(`"name":"x"`, "elsewhere")},
	{of(server.JSApiConsumerCreateT) + ".x", consumerThat(`"name":"x"`, "elsewhere")},
	{of(server.JSApiConsumerCreateExT, "x", "chat-sessions.*"), consumerThat(`"name":"x","filter_subject":"chat-sessions.*"`, "elsewhere")},
	{of(server.JSApiDurableCreateT, "x"), consumerThat(`"durable_name":"x"`, "$JS.API.STREAM.PURGE.CHAT_SESSIONS")},
	{of(server.JSApiConsumerCreateT) + ".billing", consumerThat(`"durable_name":"billing"`, "chat-sessions.x")},
	{of(server.JSApiDurableCreateT, "billing"), consumerThat(`"durable_name":"billing"`, "elsewhere")},

	{of(server.JSApiConsumersT), ""},
	{of(server.JSApiConsumerListT), ""},
	{of(server.JSApiConsumerDeleteT, "billing"), ""},
	{of(server.JSApiConsumerPauseT, "billing"), `{"pause_until":"2099-01-01T00:00:00Z"}`},
	{of(server.JSApiConsumerResetT, "billing"), `{"seq":1}`},
	{of(server.JSApiConsumerUnpinT, "billing"), `{"group":"g"}`},
	{of(server.JSApiConsumerLeaderStepDownT, "billing"), ""},
	{of(server.JSApiConsumerRemovePeerT, "billing"), `{"peer":"chat-sessions-1"}`},
	{of(server.JSApiConsumerEvacuatePeerT, "billing"), `{"peer":"chat-sessions-1"}`},

	// What belongs to another subscriber.
	{of(server.JSApiRequestNextT, "crm"), `{"batch":1,"no_wait":true}`},
	{of(server.JSApiConsumerInfoT, "crm"), ""},
	{of(server.JSApiConsumerDeleteT, "crm"), ""},
	{of(server.JSApiConsumerPauseT, "crm"), `{"pause_until":"2099-01-01T00:00:00Z"}`},
	{of(server.JSApiConsumerResetT, "crm"), `{"seq":1}`},
	{"$JS.ACK.CHAT_SESSIONS.crm.1.1.1.0.0", "+ACK"},
	{"$JS.ACK.CHAT_SESSIONS.crm.1.1.1.0.0", "+TERM"},

	{server.JSApiLeaderStepDown, ""},
	{server.JSApiRemoveServer, `{"peer":"chat-sessions-1"}`},
	{server.JSApiEvacuateServer, `{"peer":"chat-sessions-1"}`},
	{server.JSApiMetaRescue, ""},
	{of(server.JSApiAccountPurgeT), ""},
	{of(server.JSApiServerStreamMoveT, stream), "{}"},
	{of(server.JSApiServerStreamCancelMoveT, stream), "{}"},
	{"$SYS.REQ.SERVER.PING", ""},
	{"$SYS.REQ.SERVER.PING.JSZ", ""},
	{"$SYS.REQ.ACCOUNT.CHAT_SESSIONS.CONNZ", ""},
	{"$SYS.REQ.ACCOUNT.CHAT_SESSIONS.JSZ", ""},
	{"$SYS.REQ.CLAIMS.UPDATE", ""},

	{"chat-sessions.x", `{"changes":{},"session":{}}`},
}
