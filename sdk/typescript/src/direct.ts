// An HTTP client for the one request that a handler waits for at each of its steps: a commit. Node's own client takes
// 0.2 to 0.4 ms of processor for a request, this one a quarter of that.
//
// It knows plain HTTP/1.1 with content-length, one request at a time on a connection, and nothing else. Whatever looks
// different is left to Node's client: the request, or, if it is the answer that does, the request once more, and all
// later ones to that address. So it is only asked for what may arrive twice.

import type * as Buffers from 'node:buffer'
import type * as Net from 'node:net'
import { noAnswer, type HttpAnswer, type HttpRequest, type Transport } from './http.js'

const HEAD_BYTES_MAX = 64 * 1024
const ANSWER_BYTES_MAX = 64 * 1024 * 1024
const IDLE_MAX = 16

/** The answer is not of the kind that is known here. */
class Odd extends Error {}

interface Head {
  status: number
  length: number
  retryAfter: string | undefined
  stays: boolean
}

/** What the head of an answer says; undefined: not what is known here. */
export function headOf(text: string): Head | undefined {
  const status = /^HTTP\/1\.1 ([2-5]\d\d)[ \r]/.exec(text)?.[1]
  const lengths = text.match(/\r\ncontent-length:[ \t]*\d{1,10}[ \t]*(?=\r\n|$)/gi)
  if (status === undefined || status === '204' || status === '304' || lengths?.length !== 1) return undefined
  if (/\r\n(?:transfer-encoding|content-encoding|upgrade|trailer)[ \t]*:/i.test(text)) return undefined
  return {
    status: Number(status),
    length: Number(lengths[0].slice(lengths[0].indexOf(':') + 1)),
    retryAfter: /\r\nretry-after:([^\r\n]*)/i.exec(text)?.[1]?.trim(),
    stays: !/\r\nconnection:[^\r\n]*close/i.test(text)
  }
}

/** The address in a URL, and the beginning of a request; undefined: nothing for this client. */
function targetOf(request: HttpRequest): { host: string, port: number, head: string } | undefined {
  const url = new URL(request.url)
  if (url.protocol !== 'http:' || url.username !== '' || url.password !== '') return undefined
  let head = `${request.method} ${url.pathname}${url.search} HTTP/1.1\r\nhost: ${url.host}\r\n`
  for (const name in request.headers) head += `${name}: ${request.headers[name]}\r\n`
  if (/[^\t\r\n\x20-\x7e]/.test(head) || head.split('\r\n').length !== Object.keys(request.headers).length + 3) return undefined
  return { host: url.hostname.replace(/^\[|\]$/g, ''), port: Number(url.port || 80), head }
}

/** One connection: free, or with one request on its way. */
class Connection {
  private chunks: Uint8Array[] = []
  private received = 0
  private head: Head | undefined
  private headBytes = 0
  private resolve: ((answer: HttpAnswer) => void) | undefined
  private reject: ((error: unknown) => void) | undefined
  private timeoutMs = 0

  constructor(private readonly socket: Net.Socket, private readonly buffers: typeof Buffers.Buffer,
    /** It is free again, or (false) gone. */ private readonly free: (connection: Connection, alive: boolean) => void) {
    socket.setNoDelay(true)
    socket.on('data', chunk => this.read(chunk))
    socket.on('timeout', () => this.end(new Error(`no answer within ${this.timeoutMs} ms`)))
    socket.on('error', error => this.end(error))
    socket.on('close', () => this.end(new Error('the connection was closed')))
  }

  send(text: string, timeoutMs: number): Promise<HttpAnswer> {
    return new Promise((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
      this.socket.ref()
      if (timeoutMs !== this.timeoutMs) this.socket.setTimeout(this.timeoutMs = timeoutMs)
      this.socket.write(text)
    })
  }

  private read(chunk: Uint8Array): void {
    if (this.reject === undefined) return this.end(new Error('an answer to nothing'))
    this.chunks.push(chunk)
    this.received += chunk.length
    if (this.head === undefined) {
      const all = this.joined()
      this.headBytes = all.indexOf('\r\n\r\n') + 4
      if (this.headBytes < 4) return this.received > HEAD_BYTES_MAX ? this.end(new Odd('its head is long')) : undefined
      this.head = headOf(all.toString('latin1', 0, this.headBytes - 4))
      if (this.head === undefined) return this.end(new Odd('another kind of HTTP'))
      if (this.head.length > ANSWER_BYTES_MAX) return this.end(new Error('the answer is too long'))
    }
    const missing = this.headBytes + this.head.length - this.received
    if (missing < 0) this.end(new Odd('longer than it says'))
    else if (missing === 0) this.answered(this.head)
  }

  private joined(): Buffers.Buffer {
    const all = this.chunks.length === 1 ? this.chunks[0]! : this.buffers.concat(this.chunks)
    this.chunks = [all]
    return all as Buffers.Buffer
  }

  private answered({ status, retryAfter, stays }: Head): void {
    const text = this.joined().toString('utf8', this.headBytes)
    const { resolve } = this
    this.resolve = this.reject = this.head = undefined
    this.chunks = []
    this.received = 0
    this.socket.unref()
    if (!stays) this.socket.destroy()
    this.free(this, stays)
    resolve!({ status, retryAfter, text })
  }

  private end(error: unknown): void {
    const { reject } = this
    this.resolve = this.reject = undefined
    this.socket.destroy()
    this.free(this, false)
    reject?.(error)
  }
}

/** Over connections of our own where the request and its answer are simple, and over `other` where not. */
export function directTransport(net: typeof Net, { Buffer: buffers }: typeof Buffers, other: Transport): Transport {
  const idle = new Map<string, Connection[]>()
  const odd = new Set<string>()
  return async request => {
    const target = request.mayRepeat === true && request.signal === undefined ? targetOf(request) : undefined
    const address = `${target?.host} ${target?.port}`
    if (target === undefined || odd.has(address)) return other(request)
    let free = idle.get(address)
    if (free === undefined) idle.set(address, free = [])
    const { host, port, head } = target
    const body = request.body ?? ''
    const connection = free.pop() ?? new Connection(net.connect({ host, port }), buffers, (connection, alive) => {
      const at = free.indexOf(connection)
      if (alive && at < 0 && free.length < IDLE_MAX) free.push(connection)
      else if (!alive && at >= 0) free.splice(at, 1)
    })
    try {
      return await connection.send(`${head}content-length: ${buffers.byteLength(body)}\r\n\r\n${body}`, request.timeoutMs)
    } catch (error) {
      if (!(error instanceof Odd)) throw noAnswer(error)
      odd.add(address)
      return other(request)
    }
  }
}
