/** What the public types allow, and what they do not: compiled against the built package, never run. */
import { createClient, GaplessError, type Client, type RealtimeEvent, type Status } from "@gapless/core";
import { defaultPlatform } from "@gapless/core/platform";

type Equal<One, Other> = (<T>() => T extends One ? 1 : 2) extends <T>() => T extends Other ? 1 : 2 ? true : false;
function check<_True extends true>(): void {}

interface Events {
  "lead:updated": { leadId: string; name: string };
  "lead:created": { leadId: string };
}

const rt = createClient<Events>({ url: "https://events.example.com", token: async () => "token" });
rt.room("lead:123").on("lead:updated", (data, event) => {
  check<Equal<typeof data, { leadId: string; name: string }>>();
  check<Equal<typeof event, RealtimeEvent<{ leadId: string; name: string }>>>();
  check<Equal<typeof event.position, string | null>>();
});
rt.room("lead:123").on("lead:updated", async () => {});
rt.room("lead:123").on("*", (data) => check<Equal<typeof data, unknown>>());
// @ts-expect-error no such event
rt.room("lead:123").on("lead:upated", () => {});
// @ts-expect-error the data lacks a field
void rt.publish("lead:updated", { leadId: "1" });
void rt.publish("lead:updated", { leadId: "1", name: "Acme" }, { expiresIn: 60 }).then(({ position }) => check<Equal<typeof position, string | null>>());
void rt.publish({ topic: "crm/leads/1/updated", data: new Uint8Array(3), ephemeral: true });

const status: Status = rt.status.getSnapshot();
// @ts-expect-error a snapshot is immutable
status.connection = "live";
const { connection } = rt.status.getSnapshot();
switch (connection) {
  case "connecting": case "catching_up": case "live": case "degraded": case "offline": case "closed":
    break;
  default:
    check<Equal<typeof connection, never>>();
}
const stop: () => void = rt.status.subscribe(() => {});
stop();
rt.on("gap", ({ after, reason }) => check<Equal<[typeof after, typeof reason], [string | null, "expired" | "epoch"]>>());
rt.on("error", ({ error, room }) => check<Equal<[typeof error, typeof room], [GaplessError, string | null]>>());
// @ts-expect-error no such event of the client
rt.on("gaps", () => {});

const untyped: Client = createClient({ url: "/", transports: ["sse"], platform: { ...defaultPlatform(), profile: "mobile" } });
untyped.room("lead:1").on("anything", (data) => check<Equal<typeof data, unknown>>());
// @ts-expect-error no such transport
createClient({ url: "/", transports: ["carrier-pigeon"] });
// @ts-expect-error the url is needed
createClient({});
