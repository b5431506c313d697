// Serving: requests of workers in, answers out. The same endpoint stands behind Node's http, Express, and whatever
// speaks Request and Response; and serve() brings a server of its own, which registers itself.

import type * as Http from 'node:http'
import type { LocalStorage, StepScope } from './ask.js'
import { Call, type CallSettings } from './call.js'
import { CommitLine, type CommitLineOptions } from './commit.js'
import { durationMs, type Duration } from './duration.js'
import { StackShiftError } from './errors.js'
import type { Api, Transport } from './http.js'
import type { Jobs } from './job.js'
import { cwd, env, platform, type Platform } from './platform.js'
import { NAME, PROTOCOL, type CallRequest } from './protocol.js'
import { checkerOf, distrust, secretsOf, type Checker } from './signature.js'

/**
 * The settings of a handler that is mounted into a server of yours.
 *
 * @example
 * http.createServer(stackshift.nodeHandler({ signingSecret: 'whsec_…' })).listen(3000)
 */
export interface HandlerOptions {
  /** `whsec_…`, several separated by spaces or commas; unless given, STACKSHIFT_SIGNING_SECRET. */
  signingSecret?: string
}

/**
 * The settings of `serve`.
 *
 * @example
 * await stackshift.serve({ port: 3000, name: 'billing', url: 'https://billing.example.com' })
 */
export interface ServeOptions extends HandlerOptions {
  /** Where to listen; 0: any free port. */
  port: number
  /** The address to listen on; unless given, 127.0.0.1, or all of them if there is a `url`. */
  host?: string
  /** What the endpoint is called; unless given, the name in package.json. */
  name?: string
  /** Where workers reach it; unless given, `http://127.0.0.1:<port>`. */
  url?: string
}

/**
 * A server that serves jobs.
 *
 * @example
 * const serving = await stackshift.serve({ port: 0 })
 * console.log(serving.url)
 * await serving.close({ grace: '30s' })
 */
export interface Serving {
  readonly port: number
  readonly name: string
  readonly url: string
  /** Takes no further calls, lets those at work end their steps (10 s unless `grace` is given), and closes. */
  close(options?: { grace?: Duration }): Promise<void>
}

/** A request of Node's http or of Express, as far as it matters. */
export interface NodeRequest {
  readonly method?: string
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly readableEnded?: boolean
  body?: unknown
  rawBody?: unknown
  on(event: string, listener: (...values: never[]) => void): unknown
}

/** A response of Node's http or of Express, as far as it matters. */
export interface NodeResponse {
  readonly writableFinished?: boolean
  readonly destroyed?: boolean
  writeHead(status: number, headers?: Record<string, string | number>): unknown
  end(text?: string): unknown
  on(event: string, listener: (...values: never[]) => void): unknown
}

/** A listener of Node's http, or a handler of Express. */
export type NodeListener = (request: NodeRequest, response: NodeResponse) => void

/** What an endpoint is made of. */
export interface EndpointSetup {
  jobs: Jobs
  transport: () => Promise<Transport>
  warn(message: string): void
  call?: Pick<CallSettings, 'graceMs' | 'branchesGraceMs' | 'cancelGraceMs'>
  line?: CommitLineOptions
}

interface Answer {
  status: number
  body: string
  retryAfter?: string
}

const BODY_BYTES_MAX = 16 * 1024 * 1024

/** Answers the requests of workers, however they come in. */
export class Endpoint {
  /** The secrets in force; undefined: they are on their way. */
  secrets: Uint8Array[] | undefined
  private readonly calls = new Set<Call>()
  private readonly lines = new Map<string, CommitLine>()
  private closing = false
  private emptied: (() => void) | undefined

  private constructor(private readonly setup: EndpointSetup, private readonly transport: Transport,
    private readonly checker: Checker, private readonly storage: LocalStorage<StepScope> | undefined,
    /** May requests share what one of them has begun? Not on platforms that tie I/O to a request. */
    private readonly shared: boolean) {}

  static async make(setup: EndpointSetup, secrets: Uint8Array[] | undefined): Promise<Endpoint> {
    const node = await platform()
    const storage = node.asyncHooks === undefined ? undefined : new node.asyncHooks.AsyncLocalStorage<StepScope>()
    const endpoint = new Endpoint(setup, await setup.transport(), checkerOf(node), storage, node.http !== undefined)
    endpoint.secrets = secrets
    return endpoint
  }

  async answer(method: string | undefined, header: (name: string) => string | undefined, body: Uint8Array,
    onHangUp: (listener: () => void) => void): Promise<Answer> {
    if (method !== 'POST' && method !== 'GET') return problem(405, 'workers come with POST or GET')
    if (this.secrets === undefined) return { ...problem(503, 'the endpoint is being registered'), retryAfter: '1' }
    const reason = await distrust({
      id: header('webhook-id'), timestamp: header('webhook-timestamp'), signature: header('webhook-signature')
    }, body, this.secrets, this.checker)
    if (reason !== undefined) return problem(401, reason)
    if (this.closing) return { ...problem(503, 'the endpoint closes'), retryAfter: '1' }
    if (method === 'GET') return { status: 200, body: this.setup.jobs.describe() }
    return { status: 200, body: await this.call(new TextDecoder().decode(body), onHangUp) }
  }

  private async call(text: string, onHangUp: (listener: () => void) => void): Promise<string> {
    let request: CallRequest
    try {
      request = JSON.parse(text) as CallRequest
    } catch {
      return failed('ProtocolError', 'the request is not JSON')
    }
    if (request?.protocol !== PROTOCOL || typeof request.run?.job !== 'string') {
      return failed('ProtocolError', `protocol ${String(request?.protocol)} is not spoken here, but ${PROTOCOL}`)
    }
    const job = this.setup.jobs.get(request.run.job)
    if (job === undefined) {
      const served = this.setup.jobs.names().join(', ') || 'none'
      return failed('UnknownJob', `job ${request.run.job} is not served here; these are: ${served}`.slice(0, 1000))
    }
    const call = new Call(request, job, {
      ...this.setup.call, storage: this.storage, warn: this.setup.warn, committer: url => this.line(url)
    })
    this.calls.add(call)
    onHangUp(() => call.hungUp())
    try {
      return await call.start()
    } finally {
      this.calls.delete(call)
      if (this.calls.size === 0) this.emptied?.()
    }
  }

  /** Lets the calls at work come to the end of their steps. */
  async close(graceMs: number): Promise<void> {
    this.closing = true
    for (const call of this.calls) call.drain()
    if (this.calls.size === 0) return
    await new Promise<void>(resolve => {
      const timer = setTimeout(resolve, graceMs)
      this.emptied = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  private line(url: string): CommitLine {
    const known = this.shared ? this.lines.get(url) : undefined
    if (known !== undefined) return known
    const line = new CommitLine(url, this.transport, this.setup.line)
    if (this.shared) this.lines.set(url, line)
    return line
  }
}

function problem(status: number, detail: string): Answer {
  return { status, body: JSON.stringify({ status, detail }) }
}

function failed(name: string, message: string): string {
  return JSON.stringify({ protocol: PROTOCOL, ops: [], status: 'failed', error: { name, message } })
}

function configuredSecrets(options: HandlerOptions): Uint8Array[] | undefined {
  const text = options.signingSecret ?? env('STACKSHIFT_SIGNING_SECRET')
  return text === undefined ? undefined : secretsOf(text)
}

/** The endpoint, made at the first request: a program that is only built may lack the secret. */
function lazyEndpoint(setup: EndpointSetup, options: HandlerOptions): () => Promise<Endpoint> {
  let endpoint: Promise<Endpoint> | undefined
  return () => endpoint ??= (async () => {
    const secrets = configuredSecrets(options)
    if (secrets === undefined) {
      endpoint = undefined
      throw new StackShiftError('invalid_argument', 500,
        'there is no signing secret: set STACKSHIFT_SIGNING_SECRET, or pass signingSecret')
    }
    return Endpoint.make(setup, secrets)
  })()
}

/** For Node's http and for Express. */
export function nodeHandler(setup: EndpointSetup, options: HandlerOptions): NodeListener {
  return listener(setup, lazyEndpoint(setup, options))
}

function listener(setup: EndpointSetup, endpoint: () => Promise<Endpoint>): NodeListener {
  return (request, response) => {
    void (async () => {
      let answer: Answer
      try {
        const body = await bodyOf(request)
        const header = (name: string): string | undefined => {
          const value = request.headers[name]
          return Array.isArray(value) ? value.join(' ') : value
        }
        const onHangUp = (hungUp: () => void): void => {
          response.on('close', () => {
            if (response.writableFinished !== true) hungUp()
          })
          if (response.destroyed === true) hungUp() // before we listened
        }
        answer = await (await endpoint()).answer(request.method, header, body, onHangUp)
      } catch (error) {
        const status = error instanceof StackShiftError ? error.status : 500
        if (status >= 500) setup.warn((error as Error).message)
        answer = problem(status, (error as Error).message)
      }
      response.writeHead(answer.status, headersOf(answer))
      response.end(answer.body)
    })()
  }
}

function headersOf(answer: Answer): Record<string, string> {
  return {
    'content-type': answer.status === 200 ? 'application/json' : 'application/problem+json',
    'content-length': String(new TextEncoder().encode(answer.body).length),
    ...(answer.retryAfter !== undefined && { 'retry-after': answer.retryAfter })
  }
}

/** The body byte by byte: a signature is over that, not over what a parser makes of it. */
function bodyOf(request: NodeRequest): Promise<Uint8Array> {
  for (const raw of [request.rawBody, request.body]) {
    if (raw instanceof Uint8Array) return Promise.resolve(raw)
    if (typeof raw === 'string') return Promise.resolve(new TextEncoder().encode(raw))
  }
  if (request.readableEnded === true) {
    throw new StackShiftError('internal', 500, 'the body was parsed before it came here, and a signature can only be '
      + 'checked over its bytes: mount nodeHandler() before express.json(), or keep the bytes with '
      + 'express.json({ verify: (req, res, bytes) => { req.rawBody = bytes } })')
  }
  return new Promise((resolve, reject) => {
    const chunks: Uint8Array[] = []
    let length = 0
    request.on('data', (chunk: Uint8Array) => {
      length += chunk.length
      if (length <= BODY_BYTES_MAX) chunks.push(chunk)
      else reject(new StackShiftError('payload_too_large', 413, `a call has up to ${BODY_BYTES_MAX} bytes`))
    })
    request.on('error', (error: Error) => reject(error))
    request.on('end', () => resolve(chunks.length === 1 ? chunks[0]! : joined(chunks, length)))
  })
}

function joined(chunks: Uint8Array[], length: number): Uint8Array {
  const all = new Uint8Array(length)
  let at = 0
  for (const chunk of chunks) {
    all.set(chunk, at)
    at += chunk.length
  }
  return all
}

/** For whatever speaks Request and Response. */
export function fetchHandler(setup: EndpointSetup, options: HandlerOptions): (request: Request) => Promise<Response> {
  const endpoint = lazyEndpoint(setup, options)
  return async request => {
    let answer: Answer
    try {
      const body = request.method === 'GET' ? new Uint8Array() : new Uint8Array(await request.arrayBuffer())
      const onHangUp = (hungUp: () => void): void => {
        request.signal?.addEventListener('abort', hungUp, { once: true })
        if (request.signal?.aborted === true) hungUp() // before we listened
      }
      answer = await (await endpoint()).answer(request.method, name => request.headers.get(name) ?? undefined, body, onHangUp)
    } catch (error) {
      const status = error instanceof StackShiftError ? error.status : 500
      setup.warn((error as Error).message)
      answer = problem(status, (error as Error).message)
    }
    return new Response(answer.body, { status: answer.status, headers: headersOf(answer) })
  }
}

/** A server of our own, which registers itself where it has no secret. */
export async function serve(setup: EndpointSetup, api: Api, options: ServeOptions): Promise<Serving> {
  const node = await platform()
  if (node.http === undefined) {
    throw new StackShiftError('not_implemented', 501, 'serve() needs Node; fetchHandler() runs anywhere')
  }
  const endpoint = await Endpoint.make(setup, configuredSecrets(options))
  const name = options.name ?? packageName(node)
  if (!NAME.test(name)) {
    throw new StackShiftError('invalid_argument', 400,
      `endpoint '${name}' is not a name; 1 to 200 characters of A-Z a-z 0-9 _ . : / @ - are allowed`)
  }
  const server = node.http.createServer(listener(setup, () => Promise.resolve(endpoint)) as unknown as Http.RequestListener)
  server.keepAliveTimeout = 75_000 // workers keep their connections: let them be the ones to close
  server.requestTimeout = 0
  const host = options.host ?? (options.url === undefined ? '127.0.0.1' : undefined)
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(options.port, host, resolve)
  })
  const { port } = server.address() as { port: number }
  const url = options.url ?? `http://127.0.0.1:${port}`
  const close = async ({ grace = '10s' }: { grace?: Duration } = {}): Promise<void> => {
    const closed = new Promise<void>(resolve => server.close(() => resolve()))
    server.closeIdleConnections?.()
    await endpoint.close(durationMs(grace, 'grace'))
    setTimeout(() => server.closeAllConnections?.(), 100).unref() // the last answers are on their way
    await closed
  }
  try {
    if (endpoint.secrets === undefined) await register(setup, api, endpoint, name, url)
  } catch (error) {
    await close({ grace: 0 })
    throw error
  }
  return { port, name, url, close }
}

interface Registered {
  secret?: string | null
  jobs?: (string | { name?: string })[]
}

async function register(setup: EndpointSetup, api: Api, endpoint: Endpoint, name: string, url: string): Promise<void> {
  const path = `/v1/endpoints/${encodeURIComponent(name)}`
  let { body } = await api.call<Registered>('PUT', path, { body: { url } })
  const found = new Set((body.jobs ?? []).map(job => typeof job === 'string' ? job : job.name))
  if (!body.secret) ({ body } = await api.call<Registered>('POST', `${path}/rotate-secret`, { repeat: 'safe' }))
  endpoint.secrets = secretsOf(body.secret ?? '')
  if (setup.jobs.names().every(job => found.has(job))) return
  try { // whoever asked for our jobs before the secret was here got none
    await api.call('POST', `${path}/sync`, { repeat: 'safe' })
  } catch (error) {
    setup.warn(`the server has not read the jobs of endpoint ${name} yet: ${(error as Error).message}`)
  }
}

/** The name in the nearest package.json. */
function packageName(node: Platform): string {
  for (let folder = cwd(); ; folder = folder.replace(/[/\\][^/\\]*$/, '')) {
    try {
      const { name } = JSON.parse(node.fs!.readFileSync(`${folder}/package.json`, 'utf8')) as { name?: unknown }
      if (typeof name === 'string' && name !== '') return name
    } catch {
      // none here, or none that can be read
    }
    if (!/[/\\]/.test(folder)) return 'handlers'
  }
}
