// The bytes of Storage's objects as files. A file's name is the hash of the object's: whatever
// a client calls its object, nothing but its own file is touched. Versions are not kept: the
// server hands out no version when it writes and asks for one when it reads.

import type { App } from "@supabase/lite";

type Adapter = NonNullable<App["_storageAdapter"]>;
type Metadata = Awaited<ReturnType<Adapter["headObject"]>>;
type Stored = Omit<Metadata, "lastModified" | "httpStatusCode"> & { lastModified: string };

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", bytes);
  return new Uint8Array(digest).toHex();
}

async function readAll(body: ReadableStream | Uint8Array): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await new Response(body as BodyInit).arrayBuffer());
}

export class FileAdapter implements Adapter {
  readonly driver: string;

  constructor(directory: string) {
    this.driver = directory;
  }

  async getObject(bucket: string, key: string, _version: string | undefined) {
    const path = await this.#path(bucket, key);
    const metadata = await this.#metadata(path);
    const file = await Deno.open(path);
    return { metadata, httpStatusCode: 200, body: file.readable };
  }

  async headObject(bucket: string, key: string, _version: string | undefined): Promise<Metadata> {
    return await this.#metadata(await this.#path(bucket, key));
  }

  async uploadObject(
    bucket: string,
    key: string,
    _version: string | undefined,
    body: Parameters<Adapter["uploadObject"]>[3],
    contentType: string,
    cacheControl: string,
  ): Promise<Metadata> {
    const path = await this.#path(bucket, key);
    const bytes = await readAll(body as ReadableStream | Uint8Array);
    const stored: Stored = {
      cacheControl,
      contentLength: bytes.length,
      size: bytes.length,
      mimetype: contentType,
      lastModified: new Date().toISOString(),
      eTag: `"${await sha256(bytes)}"`,
    };
    await this.#replace(path, bytes);
    await this.#replace(`${path}.json`, new TextEncoder().encode(JSON.stringify(stored)));
    return await this.#metadata(path);
  }

  async deleteObject(bucket: string, key: string, _version: string | undefined): Promise<void> {
    const path = await this.#path(bucket, key);
    for (const name of [path, `${path}.json`]) {
      try {
        await Deno.remove(name);
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
    }
  }

  async deleteObjects(bucket: string, keys: string[]): Promise<void> {
    for (const key of keys) await this.deleteObject(bucket, key, undefined);
  }

  async copyObject(
    sourceBucket: string,
    source: string,
    _version: string | undefined,
    targetBucket: string,
    target: string,
    _targetVersion: string | undefined,
  ) {
    const from = await this.#path(sourceBucket, source);
    const to = await this.#path(targetBucket, target);
    await Deno.copyFile(from, to);
    await Deno.copyFile(`${from}.json`, `${to}.json`);
    const { eTag, lastModified } = await this.#metadata(to);
    return { httpStatusCode: 200, eTag, lastModified };
  }

  async privateAssetUrl(
    bucket: string,
    key: string,
    _version: string | undefined,
  ): Promise<string> {
    return `file://${await this.#path(bucket, key)}`;
  }

  async #path(bucket: string, key: string): Promise<string> {
    const name = new TextEncoder().encode(JSON.stringify([bucket, key]));
    return `${this.driver}/${await sha256(name)}`;
  }

  async #metadata(path: string): Promise<Metadata> {
    const stored: Stored = JSON.parse(await Deno.readTextFile(`${path}.json`));
    return { ...stored, lastModified: new Date(stored.lastModified), httpStatusCode: 200 };
  }

  async #replace(path: string, bytes: Uint8Array): Promise<void> {
    const staging = `${path}.${crypto.randomUUID()}`;
    await Deno.writeFile(staging, bytes, { mode: 0o600 });
    await Deno.rename(staging, path);
  }
}
