// Auth and Storage of the local stack: `@supabase/lite` on the stack's own Postgres.
//
//   platform.ts install   makes the tables of the schemas auth and storage, and ends
//   platform.ts serve     answers on a Unix socket

import { App, setExperimental } from "@supabase/lite";
import { createPostgresConnection } from "@supabase/lite/postgres";
import { FileAdapter } from "./objects.ts";
import { withFullClaims } from "./tokens.ts";

const ISSUES_TOKENS = new Set(["/auth/v1/signup", "/auth/v1/token", "/auth/v1/verify"]);

interface Settings {
  /** The directory of Postgres' Unix socket. */
  host: string;
  port: number;
  user: string;
  /** Where to listen. */
  socket: string;
  /** The directory of the objects' bytes; null where there is none. */
  objects: string | null;
  url: string;
  jwt_secret: string;
  publishable_key: string;
  secret_key: string;
}

function makeApp(settings: Settings): App {
  const connection = createPostgresConnection({
    url: "",
    postgresOptions: {
      path: `${settings.host}/.s.PGSQL.${settings.port}`,
      username: settings.user,
      database: "postgres",
      max: 5,
      onnotice: () => {},
      // RFC 3339 as Auth writes it; Postgres' own form is refused by strict clients.
      types: {
        timestamptz: {
          to: 1184,
          from: [1184],
          serialize: (value: string) => value,
          parse: (value: string) => new Date(value).toISOString(),
        },
      },
    },
  });
  // Left to find out by itself that tables have row level security, it grants ALL on them to
  // anon. There is no public way to say that the roles and grants are in place.
  (connection as unknown as { rlsState: string }).rlsState = "active";
  setExperimental("storage", true);
  const app = new App({
    connection,
    auth: {
      enabled: true,
      site_url: settings.url,
      jwt_secret: settings.jwt_secret,
      publishable_key: settings.publishable_key,
      secret_key: settings.secret_key,
      enable_signup: true,
      email: { enable_signup: true, enable_confirmations: false },
    },
    storage: { enabled: settings.objects !== null, file_size_limit: "256MiB" },
    db: { migrations: { enabled: false } },
    options: { server: { admin: false } },
  });
  if (settings.objects !== null) app._storageAdapter = new FileAdapter(settings.objects);
  return app;
}

// Hosted and every client call it signedURL, relative to /storage/v1.
async function withSignedUrls(response: Response): Promise<Response> {
  const body = (await response.text())
    .replaceAll('"signedUrl":"/storage/v1', '"signedURL":"')
    .replaceAll('"signedUrl"', '"signedURL"');
  const headers = new Headers(response.headers);
  headers.delete("content-length");
  return new Response(body, { status: response.status, headers });
}

function serve(app: App, settings: Settings): void {
  Deno.serve({ path: settings.socket, onListen: () => {} }, async (request) => {
    const url = new URL(request.url);
    // Served as if under the stack's URL: redirects and links are made from it.
    const target = new URL(url.pathname + url.search, settings.url);
    const response = await app.fetch(new Request(target, request), { peerAddress: null });
    if (request.method === "POST" && response.ok) {
      if (url.pathname.startsWith("/storage/v1/object/sign/")) {
        return await withSignedUrls(response);
      }
      if (ISSUES_TOKENS.has(url.pathname)) {
        return await withFullClaims(response, `${settings.url}/auth/v1`, settings.jwt_secret);
      }
    }
    return response;
  });
}

if (import.meta.main) {
  const settings: Settings = JSON.parse(Deno.env.get("PLATFORM_SETTINGS") ?? "null");
  const app = makeApp(settings);
  if (Deno.args[0] === "install") {
    await app.ensureSystemSchema();
    await app.connection.close();
  } else {
    serve(app, settings);
  }
}
