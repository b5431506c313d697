// The fleet's side of the protocol, as a real HTTP server and a worker that calls endpoints: what the tests run against.
// It keeps what runs remember, takes commits under tokens, and can be told to misbehave.

import { createHmac, randomBytes, randomUUID } from 'node:crypto'
import { createServer, request, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { ErrorJson } from '#sdk/errors.js'

export interface Entry {
  name: string
  kind: string
  result?: unknown
  error?: ErrorJson
  ref?: string
}

export interface Op {
  op: string
  name: string
  [member: string]: unknown
}

export interface Answer {
  protocol: number
  ops: Op[]
  status: 'completed' | 'failed' | 'suspended' | 'continue'
  result?: unknown
  error?: ErrorJson & { retryAfter?: string }
}

/** A run as the fleet keeps it. */
export interface FleetRun {
  id: string
  job: string
  payload: unknown
  attempt: number
  maxAttempts: number
  steps: Entry[]
  tries: Record<string, number>
  token: string
  lost: boolean
  cancelled: boolean
  logs: Op[]
  progress: unknown
  /** How many commits had nothing in them. */
  heartbeats: number
  /** Every op that arrived, as often as it arrived. */
  arrived: Op[]
  version: string | null
}

export interface CommitRequest {
  commits: { token: string, ops: Op[] }[]
}

/** What a test wants to happen to a commit instead: `lose` does it, and hangs up without an answer. */
export type Fault = 'lose' | 'drop' | number | { status: number, headers: Record<string, string> } | { each: { code: string, message?: string } } | undefined

export class Fleet {
  readonly secret = `whsec_${randomBytes(24).toString('base64')}`
  readonly runs = new Map<string, FleetRun>()
  readonly commits: CommitRequest[] = []
  /** The bodies of the commits, byte by byte. */
  readonly bodies: string[] = []
  /** Their headers `authorization`. */
  readonly shown: (string | undefined)[] = []
  readonly state = new Map<string, { value: unknown, version: number, expiresAt: string | null }>()
  readonly sent: Op[] = []
  readonly refs = new Map<string, { result?: unknown, error?: ErrorJson }>()
  /** Asked at each commit, with its number from 1. */
  fault: (number: number, request: CommitRequest) => Fault | Promise<Fault> = () => undefined
  /** Everything else that comes to the server: the API under /v1. */
  api: (request: ApiRequest) => ApiAnswer | Promise<ApiAnswer> = () => ({ status: 404, body: { code: 'not_found', status: 404, detail: 'not here' } })
  maxRunMs = 300_000
  /** Connections that were made. */
  connections = 0
  private constructor(readonly server: Server, readonly url: string) {}

  static async start(): Promise<Fleet> {
    const server = createServer()
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    const fleet = new Fleet(server, `http://127.0.0.1:${(server.address() as AddressInfo).port}`)
    server.on('connection', () => fleet.connections++)
    server.on('request', (req, res) => void fleet.respond(req, res))
    return fleet
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections()
    await new Promise(resolve => this.server.close(resolve))
  }

  run(job: string, payload: unknown = {}, more: Partial<FleetRun> = {}): FleetRun {
    const run: FleetRun = {
      id: randomUUID(), job, payload, attempt: 1, maxAttempts: 5, steps: [], tries: {}, token: randomUUID(), lost: false,
      cancelled: false, logs: [], progress: undefined, heartbeats: 0, arrived: [], version: null, ...more
    }
    this.runs.set(run.token, run)
    return run
  }

  /** One call of the endpoint, and what it answers. Its ops are done. */
  async call(endpoint: string, run: FleetRun, options: { commit?: string | null, signal?: AbortSignal } = {}): Promise<Answer> {
    run.token = randomUUID() // a lease of its own
    this.runs.set(run.token, run)
    const url = options.commit === undefined ? `${this.url}/v1/commit` : options.commit
    const response = await this.post(endpoint, JSON.stringify({
      protocol: 1,
      run: {
        id: run.id, job: run.job, queueName: 'default', attempt: run.attempt, maxAttempts: run.maxAttempts,
        createdAt: '2026-05-06T09:00:00.000000Z', namespace: 'default', version: run.version, tags: {}
      },
      payload: run.payload, steps: run.steps, tries: run.tries,
      commit: url === null ? null : { url, token: run.token, maxRunMs: this.maxRunMs },
      traceparent: null, more: 'to be ignored'
    }), { signal: options.signal })
    if (response.status !== 200) throw new Error(`the endpoint answered ${response.status}: ${response.body}`)
    const answer = JSON.parse(response.body) as Answer
    if (!run.lost && !run.cancelled) for (const op of answer.ops) this.apply(run, op)
    return answer
  }

  /** Calls until the run is neither to be continued nor resumed from what the fleet can do by itself. */
  async drive(endpoint: string, run: FleetRun, options: { commit?: string | null, callsMax?: number } = {}): Promise<Answer> {
    for (let calls = 0; calls < (options.callsMax ?? 100); calls++) {
      const answer = await this.call(endpoint, run, options)
      if (answer.status === 'continue') continue
      if (answer.status === 'failed' && answer.error?.retryable !== false && run.attempt < run.maxAttempts) {
        run.attempt++
        continue
      }
      const last = answer.ops.at(-1)
      if (answer.status === 'suspended' && last?.op === 'sleep') {
        run.steps.push({ name: last.name, kind: 'sleep', result: null })
        continue
      }
      if (answer.status === 'suspended' && last?.op === 'step_retry') continue
      return answer
    }
    throw new Error('the run does not end')
  }

  /** A request of a worker, signed. */
  post(endpoint: string, body: string, options: { method?: string, secret?: string, timestamp?: number, headers?: Record<string, string>, signal?: AbortSignal } = {}):
  Promise<{ status: number, body: string, headers: IncomingMessage['headers'] }> {
    const method = options.method ?? 'POST'
    const headers = { 'content-type': 'application/json', ...this.sign(body, options), ...options.headers }
    return new Promise((resolve, reject) => {
      const call = request(endpoint, { method, headers, signal: options.signal }, response => {
        let text = ''
        response.setEncoding('utf8').on('data', chunk => { text += chunk }).on('error', reject)
        response.on('end', () => resolve({ status: response.statusCode!, body: text, headers: response.headers }))
      })
      call.on('error', reject)
      call.end(method === 'GET' ? undefined : body)
    })
  }

  sign(body: string, options: { secret?: string, timestamp?: number } = {}): Record<string, string> {
    const id = `msg_${randomUUID()}`
    const timestamp = String(options.timestamp ?? Math.floor(Date.now() / 1000))
    const key = Buffer.from((options.secret ?? this.secret).slice('whsec_'.length), 'base64')
    const signature = createHmac('sha256', key).update(`${id}.${timestamp}.${body}`).digest('base64')
    return { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': `v1,${signature}` }
  }

  private async respond(req: IncomingMessage, res: ServerResponse): Promise<void> {
    let body = ''
    for await (const chunk of req.setEncoding('utf8')) body += chunk as string
    const url = new URL(req.url!, this.url)
    if (url.pathname === '/v1/commit') return req.method === 'GET' ? this.read(url, req, res) : this.commit(body, req, res)
    const answer = await this.api({
      method: req.method!, path: url.pathname, query: url.searchParams, headers: req.headers,
      body: body === '' ? undefined : JSON.parse(body), text: body
    })
    if (answer.hangUp) return void req.socket.destroy()
    reply(res, answer.status, answer.body, answer.headers)
  }

  private read(url: URL, req: IncomingMessage, res: ServerResponse): void {
    const run = this.runs.get((req.headers.authorization ?? '').replace('Bearer ', ''))
    const value = this.refs.get(url.searchParams.get('ref') ?? '')
    reply(res, run !== undefined && value !== undefined ? 200 : 404, value ?? { code: 'not_found' })
  }

  private async commit(body: string, req: IncomingMessage, res: ServerResponse): Promise<void> {
    const commit = JSON.parse(body) as CommitRequest
    this.bodies.push(body)
    this.shown.push(req.headers.authorization)
    this.commits.push(commit)
    const fault = await this.fault(this.commits.length, commit)
    if (fault === 'drop') return void req.socket.destroy()
    if (typeof fault === 'number') return reply(res, fault, { status: fault })
    if (typeof fault === 'object' && 'status' in fault) return reply(res, fault.status, {}, fault.headers)
    if (typeof fault === 'object') return reply(res, 200, { commits: commit.commits.map(() => fault.each) })
    const commits = commit.commits.map(({ token, ops }) => {
      const run = this.runs.get(token)
      if (run === undefined || run.lost || run.token !== token) return { code: 'lease_lost' }
      if (ops.length === 0) run.heartbeats++
      const results = run.cancelled ? ops.map(() => ({})) : ops.map(op => this.apply(run, op))
      return { results, cancelled: run.cancelled, leaseUntil: '2036-01-01T00:00:00Z' }
    })
    if (fault === 'lose') return void req.socket.destroy()
    reply(res, 200, { commits })
  }

  private apply(run: FleetRun, op: Op): { result?: unknown, error?: unknown } {
    run.arrived.push(op)
    if (op.op === 'log') run.logs.push(op)
    else if (op.op === 'progress') run.progress = op.value
    else if (op.op === 'step_retry') run.tries[op.name] = op.tries as number
    if (!['step', 'state', 'send_event'].includes(op.op)) return {}
    const known = run.steps.find(({ name }) => name === op.name)
    if (known !== undefined) {
      if (op.op === 'step') return {}
      return known.error === undefined ? { result: known.result } : { error: known.error }
    }
    const outcome = op.op === 'step' ? 'error' in op ? { error: op.error as ErrorJson } : { result: op.result }
      : op.op === 'state' ? this.changeState(op) : this.send(op)
    run.steps.push({ name: op.name, kind: op.op, ...outcome })
    return op.op === 'step' ? {} : outcome
  }

  private send(op: Op): { result: unknown } {
    this.sent.push(op)
    return { result: { id: randomUUID() } }
  }

  private changeState(op: Op): { result?: unknown, error?: ErrorJson } {
    const key = op.key as string
    const now = this.state.get(key)
    const version = (now?.version ?? 0) + 1
    const expiresAt = op.expiresAt as string | null ?? null
    switch (op.action) {
      case 'get':
        return { result: now ?? null }
      case 'set':
        if (op.ifVersion !== undefined && op.ifVersion !== (now?.version ?? 0)) {
          return { error: { name: 'StackShiftError', code: 'conflict', message: `state '${key}' has another version` } }
        }
        this.state.set(key, { value: op.value, version, expiresAt })
        return { result: { version } }
      case 'increment': {
        const value = (now?.value as number | undefined ?? 0) + (op.by as number)
        this.state.set(key, { value, version, expiresAt })
        return { result: value }
      }
      case 'delete':
        return { result: this.state.delete(key) }
      case 'lock':
        if (this.state.has(`lock:${key}`)) return { result: false }
        this.state.set(`lock:${key}`, { value: op.ttl, version, expiresAt })
        return { result: true }
      default:
        return { result: this.state.delete(`lock:${key}`) }
    }
  }
}

export interface ApiRequest {
  method: string
  path: string
  query: URLSearchParams
  headers: IncomingMessage['headers']
  body: unknown
  text: string
}

export interface ApiAnswer {
  status: number
  body?: unknown
  headers?: Record<string, string>
  /** Hang up instead of answering. */
  hangUp?: boolean
}

function reply(res: ServerResponse, status: number, body: unknown, headers: Record<string, string> = {}): void {
  const text = body === undefined ? '' : JSON.stringify(body)
  res.writeHead(status, {
    'content-type': status < 400 ? 'application/json' : 'application/problem+json', 'content-length': Buffer.byteLength(text), ...headers
  })
  res.end(text)
}
