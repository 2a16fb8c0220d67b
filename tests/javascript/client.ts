// A client of the real supabase-js, driven by a test: commands come as lines, answers go as lines.

import { createClient, type RealtimeChannel } from "@supabase/supabase-js";

const [url, key, token, vsn] = Deno.args;
const supabase = createClient(url, key, {
  accessToken: () => Promise.resolve(token),
  realtime: { vsn },
});

function tell(what: Record<string, unknown>): void {
  console.log(JSON.stringify(what));
}

let channel: RealtimeChannel | undefined;

const commands: Record<string, (given: Record<string, unknown>) => Promise<void>> = {
  join(given) {
    channel = supabase.channel(given.topic as string, {
      config: {
        private: given.private as boolean,
        broadcast: { self: false, ack: true },
        presence: { key: given.key as string },
      },
    });
    channel
      .on("broadcast", { event: "*" }, (message) => {
        const payload = message.payload instanceof ArrayBuffer
          ? { bytes: [...new Uint8Array(message.payload)] }
          : message.payload;
        tell({ heard: message.event, payload, meta: message.meta });
      })
      .on("presence", { event: "sync" }, () => {
        tell({ present: Object.keys(channel!.presenceState()).sort() });
      })
      .on(
        "postgres_changes",
        { event: "*", schema: "public", table: "rt_notes", filter: "amount=gt.5" },
        (change) => tell({ changed: change.eventType, new: change.new, old: change.old }),
      )
      .subscribe((state, error) => tell({ state, error: error?.message }));
    return Promise.resolve();
  },
  async send(given) {
    const payload = given.bytes === undefined
      ? given.payload
      : new Uint8Array(given.bytes as number[]).buffer;
    const event = given.event as string;
    const persist = given.persist as boolean | undefined;
    tell({ sent: await channel!.send({ type: "broadcast", event, payload, persist }) });
  },
  async http(given) {
    tell({ http: await channel!.httpSend(given.event as string, given.payload) });
  },
  async call(given) {
    const { data, error } = await supabase.schema("haive")
      .rpc(given.function as string, given.arguments as Record<string, unknown>);
    tell({ called: given.function, data, error: error?.message, code: error?.code });
  },
  // What a page of the documentation has, as a module would run it.
  async run(given) {
    const AsyncFunction = Object.getPrototypeOf(async function () {}).constructor;
    const load = () => tell({ loaded: true });
    const show = (shown: unknown) => tell({ shown });
    const report = (error: unknown) => tell({ reported: String(error) });
    const code = `"use strict";\n${given.code}`;
    try {
      const run = new AsyncFunction("supabase", "load", "show", "report", code);
      await run(supabase, load, show, report);
    } catch (error) {
      report(error);
    }
    tell({ ran: true });
  },
  async track(given) {
    tell({ tracked: await channel!.track(given.payload as Record<string, unknown>) });
  },
};

const input = Deno.stdin.readable.pipeThrough(new TextDecoderStream());
let rest = "";
for await (const chunk of input) {
  const lines = (rest + chunk).split("\n");
  rest = lines.pop()!;
  for (const line of lines) {
    const given = JSON.parse(line);
    await commands[given.command](given);
  }
}
await supabase.removeAllChannels();
Deno.exit(0);
