// HTTP as a client: requests over connections that stay open, and calls of the API on top of them, which are repeated
// where that is safe.
//
// Safe means: a second arrival changes nothing. Reads, PUT and DELETE are; a start or an event is by its idempotency
// key, for which the caller gets one if it has none. What is not (an increment, a fork) is repeated only where the
// first try certainly did nothing: the connection was refused, or the server said 429.

import { directTransport } from './direct.js'
import { codeOf, StackShiftError } from './errors.js'
import { retryAfterMs } from './duration.js'
import { platform, type Platform } from './platform.js'

export interface HttpRequest {
  method: string
  url: string
  headers: Record<string, string>
  body?: string
  signal?: AbortSignal
  /** How long without a sign of the other side. */
  timeoutMs: number
  /** Changes nothing if it arrives twice, so a lighter client may try it first. */
  mayRepeat?: boolean
}

export interface HttpAnswer {
  status: number
  retryAfter: string | undefined
  text: string
}

/** Sends one request. Rejects with NoAnswer, or with the signal's reason. */
export type Transport = (request: HttpRequest) => Promise<HttpAnswer>

/**
 * The function `fetch`, as far as it is used here.
 *
 * @example
 * const stackshift = new StackShift({ fetch: (url, init) => fetch(url, { ...init, dispatcher: proxy }) })
 */
export type Fetch = (url: string, init: {
  method: string, headers: Record<string, string>, body?: string, signal?: AbortSignal, redirect?: 'manual'
}) => Promise<{ status: number, headers: { get(name: string): string | null }, text(): Promise<string> }>

/** There was no answer. `sent` is false where the request certainly did not arrive. */
export class NoAnswer extends Error {
  override readonly name = 'NoAnswer'

  constructor(readonly sent: boolean, cause: unknown) {
    super(reasonOf(cause), { cause })
  }
}

const NEVER_ARRIVED = new Set([
  'ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH', 'UND_ERR_CONNECT_TIMEOUT'
])
const ANSWER_CHARS_MAX = 64 * 1024 * 1024

function reasonOf(cause: unknown): string {
  const error = innermost(cause)
  return error.message || error.code || 'no answer'
}

function innermost(cause: unknown): { message?: string, code?: string } {
  const error = cause as { message?: string, code?: string, cause?: unknown, errors?: unknown[] } | null
  const inner = error?.cause ?? error?.errors?.[0] // fetch wraps, and an address with two families fails twice
  return inner === undefined || inner === null ? error ?? {} : innermost(inner)
}

/** There was no answer, because of this. */
export function noAnswer(cause: unknown): NoAnswer {
  const code = innermost(cause).code
  return new NoAnswer(code === undefined || !NEVER_ARRIVED.has(code), cause)
}

/** Over Node's own client: its connections stay open, and it costs half of what fetch does. */
function nodeTransport(node: Platform): Transport {
  const http = node.http!
  const https = node.https!
  const agents = {
    'http:': new http.Agent({ keepAlive: true, maxFreeSockets: 64 }),
    'https:': new https.Agent({ keepAlive: true, maxFreeSockets: 64 })
  }
  return request => new Promise((resolve, reject) => {
    const url = new URL(request.url)
    if (url.protocol !== 'http:' && url.protocol !== 'https:') {
      throw new StackShiftError('invalid_argument', 400, `'${request.url}' is not an http or https address`)
    }
    if (request.signal?.aborted) throw request.signal.reason
    const call = (url.protocol === 'https:' ? https : http).request(url, {
      method: request.method, headers: request.headers, agent: agents[url.protocol],
      timeout: request.timeoutMs > 0 ? request.timeoutMs : undefined
    }, answer => {
      let text = ''
      answer.setEncoding('utf8')
      answer.on('data', (chunk: string) => {
        text += chunk
        if (text.length > ANSWER_CHARS_MAX) call.destroy(new Error('the answer is too long'))
      })
      answer.on('error', error => reject(noAnswer(error)))
      answer.on('end', () => {
        request.signal?.removeEventListener('abort', abort)
        resolve({ status: answer.statusCode!, retryAfter: answer.headers['retry-after'], text })
      })
    })
    const abort = (): void => {
      reject(request.signal!.reason)
      call.destroy()
    }
    request.signal?.addEventListener('abort', abort, { once: true })
    call.on('timeout', () => call.destroy(new Error(`no answer within ${request.timeoutMs} ms`)))
    call.on('error', error => {
      request.signal?.removeEventListener('abort', abort)
      reject(noAnswer(error))
    })
    call.end(request.body)
  })
}

/** Over fetch, where there is nothing else, or where the user brings one. */
export function fetchTransport(fetch: Fetch): Transport {
  return async request => {
    const controller = new AbortController()
    const abort = (): void => controller.abort(request.signal?.reason)
    if (request.signal?.aborted) throw request.signal.reason
    request.signal?.addEventListener('abort', abort, { once: true })
    const timer = request.timeoutMs > 0
      ? setTimeout(() => controller.abort(new Error(`no answer within ${request.timeoutMs} ms`)), request.timeoutMs)
      : undefined
    try {
      const answer = await fetch(request.url, {
        method: request.method, headers: request.headers, body: request.body, signal: controller.signal, redirect: 'manual'
      })
      return { status: answer.status, retryAfter: answer.headers.get('retry-after') ?? undefined, text: await answer.text() }
    } catch (error) {
      if (request.signal?.aborted) throw request.signal.reason
      throw noAnswer(controller.signal.aborted ? controller.signal.reason : error)
    } finally {
      clearTimeout(timer)
      request.signal?.removeEventListener('abort', abort)
    }
  }
}

/** The best that this platform has. */
export async function ownTransport(): Promise<Transport> {
  const node = await platform()
  if (node.http !== undefined && node.https !== undefined) {
    const full = nodeTransport(node)
    return node.net === undefined || node.buffer === undefined ? full : directTransport(node.net, node.buffer, full)
  }
  return fetchTransport(globalThis.fetch as Fetch)
}

/**
 * What each call of the API may be given besides its arguments.
 *
 * @example
 * await stackshift.runs.get(id, { signal: AbortSignal.timeout(2000) })
 */
export interface CallOptions {
  /** Ends the waiting; the promise then rejects with the signal's reason. */
  signal?: AbortSignal
}

export interface ApiCall extends CallOptions {
  query?: Record<string, string | number | boolean | readonly string[] | undefined>
  body?: unknown
  /** May it arrive twice? As the head of this file says; unless given, what the method promises. */
  repeat?: 'safe' | 'unless_arrived'
  /** How long the server is asked to wait before it answers. */
  waitMs?: number
}

export interface ApiAnswer<T> {
  status: number
  body: T
  /** An earlier try of this call may have arrived. */
  repeated: boolean
}

export interface ApiOptions {
  baseUrl: string
  apiKey: string | undefined
  transport: () => Promise<Transport>
  timeoutMs: number
  retryForMs: number
}

interface Problem {
  code?: string
  detail?: string
  title?: string
}

const PAUSE_MS = 50
const PAUSE_MS_MAX = 2000

/** The API of one server, for one key. */
export class Api {
  constructor(private readonly options: ApiOptions) {}

  /** Calls, and gives what was answered. Throws StackShiftError, or the signal's reason. */
  async call<T>(method: string, path: string, call: ApiCall = {}): Promise<ApiAnswer<T>> {
    const request = this.request(method, path, call)
    const transport = await this.options.transport()
    const safe = call.repeat === undefined ? method !== 'POST' : call.repeat === 'safe'
    const begin = Date.now()
    let repeated = false
    for (let tries = 0; ; tries++) {
      const error = await this.once<T>(transport, request)
      if (!(error instanceof StackShiftError)) return { ...error, repeated }
      const arrived = error.status === 0 ? !(error.cause instanceof NoAnswer) || error.cause.sent : error.status !== 429
      const passing = error.status === 0 || error.status === 429 || error.status === 408 || error.status >= 502
      if (!passing || arrived && !safe) throw error
      const pause = error.retryAfterMs ?? Math.random() * Math.min(PAUSE_MS_MAX, PAUSE_MS * 2 ** Math.min(tries, 20))
      if (Date.now() - begin + pause > this.options.retryForMs) throw error
      repeated ||= arrived
      await sleep(pause, call.signal)
    }
  }

  private request(method: string, path: string, call: ApiCall): HttpRequest {
    if (this.options.apiKey === undefined) {
      throw new StackShiftError('unauthorized', 401,
        'there is no API key: pass apiKey to new StackShift(), or set STACKSHIFT_API_KEY')
    }
    const headers: Record<string, string> = { authorization: `Bearer ${this.options.apiKey}`, accept: 'application/json' }
    const url = new URL(this.options.baseUrl + path)
    for (const [name, value] of Object.entries(call.query ?? {})) {
      if (value === undefined) continue
      for (const one of Array.isArray(value) ? value : [value]) url.searchParams.append(name, String(one))
    }
    const request: HttpRequest = {
      method, url: url.href, headers, signal: call.signal, timeoutMs: this.options.timeoutMs + (call.waitMs ?? 0)
    }
    if (call.body !== undefined) {
      request.body = typeof call.body === 'string' ? call.body : JSON.stringify(call.body)
      headers['content-type'] = 'application/json'
    }
    return request
  }

  private async once<T>(transport: Transport, request: HttpRequest):
  Promise<StackShiftError | Omit<ApiAnswer<T>, 'repeated'>> {
    let answer: HttpAnswer
    try {
      answer = await transport(request)
    } catch (cause) {
      if (!(cause instanceof NoAnswer)) throw cause
      return new StackShiftError('unavailable', 0, `${this.options.baseUrl} did not answer: ${cause.message}`, { cause })
    }
    const body = parse(answer.text)
    if (answer.status >= 200 && answer.status < 300) return { status: answer.status, body: body as T }
    const problem = (typeof body === 'object' && body !== null ? body : {}) as Problem
    const { pathname } = new URL(request.url)
    return new StackShiftError(problem.code ?? codeOf(answer.status), answer.status,
      problem.detail ?? problem.title ?? `${request.method} ${pathname} was answered with ${answer.status}`,
      { retryAfterMs: retryAfterMs(answer.retryAfter) })
  }
}

function parse(text: string): unknown {
  try {
    return text === '' ? undefined : JSON.parse(text)
  } catch {
    return undefined // a proxy's page: the status says enough
  }
}

/** Waits; an abort ends it with the signal's reason. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason)
    const abort = (): void => {
      clearTimeout(timer)
      reject(signal!.reason)
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', abort)
      resolve()
    }, ms)
    signal?.addEventListener('abort', abort, { once: true })
  })
}
