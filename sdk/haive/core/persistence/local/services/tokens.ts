// Access tokens with the claims that hosted's carry and policies read: the server issues them
// with the user's id, role and session only.

interface User {
  phone?: string;
  is_anonymous?: boolean;
  app_metadata: Record<string, unknown>;
  user_metadata: Record<string, unknown>;
}

const BASE64URL = { alphabet: "base64url", omitPadding: true } as const;

function encode(value: unknown): string {
  return new TextEncoder().encode(JSON.stringify(value)).toBase64(BASE64URL);
}

function decode(part: string): Record<string, unknown> {
  return JSON.parse(new TextDecoder().decode(Uint8Array.fromBase64(part, BASE64URL)));
}

async function sign(claims: Record<string, unknown>, secret: string): Promise<string> {
  const signed = `${encode({ alg: "HS256", typ: "JWT" })}.${encode(claims)}`;
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const bytes = new TextEncoder();
  const key = await crypto.subtle.importKey("raw", bytes.encode(secret), algorithm, false, [
    "sign",
  ]);
  const signature = await crypto.subtle.sign("HMAC", key, bytes.encode(signed));
  return `${signed}.${new Uint8Array(signature).toBase64(BASE64URL)}`;
}

/** Return the server's answer, the access token in it issued anew with all claims. */
export async function withFullClaims(
  response: Response,
  issuer: string,
  secret: string,
): Promise<Response> {
  const session = await response.json();
  if (typeof session.access_token === "string" && session.user) {
    const user: User = session.user;
    const claims = {
      iss: issuer,
      aal: "aal1",
      ...decode(session.access_token.split(".")[1]),
      phone: user.phone ?? "",
      is_anonymous: user.is_anonymous ?? false,
      app_metadata: user.app_metadata,
      user_metadata: user.user_metadata,
    };
    session.access_token = await sign(claims, secret);
  }
  const headers = new Headers(response.headers);
  headers.delete("content-length");
  return new Response(JSON.stringify(session), { status: response.status, headers });
}
