// Committing while handlers run: the ops of all runs that have something just then go to commit.url in one request.
//
// One request is under way for each address; what gathers meanwhile goes with the next. So a lone run waits for
// nobody, and a thousand runs share few requests, without a timer. A request without an answer, or with 5xx, is said
// again unchanged: the server knows by the names what it has committed already. When that does not help either, the
// calls concerned are told `unreachable`, and carry their ops in their answers instead; for a while new calls do so
// from the beginning.
//
// One timer for each address looks after heartbeats, and runs only while a call does.

import { NoAnswer, type Transport } from './http.js'
import { retryAfterMs } from './duration.js'
import type { Committed, OpResult } from './protocol.js'

/** An op that waits to be committed, as text; `done` is what waits for its result. */
export interface Op {
  text: string
  /** Known again by its name, if it is said twice. */
  named: boolean
  done?: (result: OpResult) => void
}

/** What a call is to those who commit for it. */
export interface Lease {
  readonly token: string
  /** When ops of it were last sent, or a heartbeat. */
  saidAt: number
  /** Hands over its ops, the oldest first, up to about so many characters. */
  take(charsMax: number): Op[]
  /** Does it have more? */
  hasMore(): boolean
  /** What came of the ops that were taken. */
  settle(committed: Committed): void
  /** Nobody takes them there: the ops that were taken, and those to come, have to go with the answer. */
  unreachable(): void
}

/** Commits for calls: over HTTP, or in memory in a test. */
export interface Committer {
  /** Is it worth a try just now? */
  readonly reachable: boolean
  attach(lease: Lease): void
  detach(lease: Lease): void
  /** The lease has ops to commit. */
  wake(lease: Lease): void
  /** Reads an entry that did not fit into the call. */
  read(ref: string, token: string): Promise<OpResult>
}

export interface CommitLineOptions {
  /** Silence after which a call says a heartbeat. */
  heartbeatMs?: number
  /** How long a request may go unanswered. */
  timeoutMs?: number
  /** How long a request is said again, before its ops go with the answers. */
  retryForMs?: number
  /** How long commit.url is left alone after that. */
  restMs?: number
}

interface Part {
  lease: Lease
  ops: Op[]
}

const CHARS_MAX = 2 * 1024 * 1024
const PARTS_MAX = 1000
const REFUSED_TRIES_MAX = 4

/** The commits of this process to one address. */
export class CommitLine implements Committer {
  private readonly leases = new Set<Lease>()
  private waiting = new Set<Lease>()
  private underWay = false
  private planned = false
  private restUntil = 0
  private timer: ReturnType<typeof setInterval> | undefined
  private readonly heartbeatMs: number
  private readonly timeoutMs: number
  private readonly retryForMs: number
  private readonly restMs: number

  constructor(private readonly url: string, private readonly transport: Transport, options: CommitLineOptions = {}) {
    this.heartbeatMs = options.heartbeatMs ?? 4000 // with the timer's step below, one is said each 5 seconds at the latest
    this.timeoutMs = options.timeoutMs ?? 10_000
    this.retryForMs = options.retryForMs ?? 15_000
    this.restMs = options.restMs ?? 5000
  }

  get reachable(): boolean {
    return this.restUntil === 0 || Date.now() >= this.restUntil
  }

  attach(lease: Lease): void {
    lease.saidAt = Date.now()
    this.leases.add(lease)
    this.timer ??= setInterval(() => this.beat(), this.heartbeatMs / 8)
  }

  detach(lease: Lease): void {
    this.leases.delete(lease)
    this.waiting.delete(lease)
    if (this.leases.size === 0) {
      clearInterval(this.timer)
      this.timer = undefined
    }
  }

  wake(lease: Lease): void {
    this.waiting.add(lease)
    this.plan()
  }

  async read(ref: string, token: string): Promise<OpResult> {
    const url = `${this.url}${this.url.includes('?') ? '&' : '?'}ref=${encodeURIComponent(ref)}`
    let reason = ''
    for (let tries = 0; tries < 4; tries++) {
      if (tries > 0) await pause(50 * 4 ** tries)
      try {
        const answer = await this.transport({
          method: 'GET', url, headers: { authorization: `Bearer ${token}` }, timeoutMs: this.timeoutMs, mayRepeat: true
        })
        if (answer.status === 200) return JSON.parse(answer.text) as OpResult
        reason = `it was answered with ${answer.status}`
        if (answer.status < 500 && answer.status !== 429) break
      } catch (error) {
        reason = (error as Error).message
      }
    }
    throw new Error(`what the run remembers as ref ${ref} could not be read from ${this.url}: ${reason}`)
  }

  /** Sends after the code that runs now: what it has to commit besides goes along. */
  private plan(): void {
    if (this.planned || this.underWay) return
    this.planned = true
    queueMicrotask(() => {
      this.planned = false
      void this.send()
    })
  }

  private beat(): void {
    const due = Date.now() - this.heartbeatMs
    let any = false
    for (const lease of this.leases) {
      if (lease.saidAt > due) continue
      lease.saidAt = Date.now() // also if none can be sent now: one a beat
      this.waiting.add(lease)
      any = true
    }
    if (any) this.plan()
  }

  private async send(): Promise<void> {
    const parts = this.gather()
    if (parts.length === 0) return
    if (!this.reachable) return this.giveUp(parts)
    this.underWay = true
    const committed = await this.commit(parts)
    this.underWay = false
    if (committed === undefined) {
      this.restUntil = Date.now() + this.restMs
      this.giveUp(parts)
    } else {
      this.restUntil = 0
      for (let i = 0; i < parts.length; i++) parts[i]!.lease.settle(committed[i]!)
    }
    if (this.waiting.size > 0) this.plan()
  }

  private gather(): Part[] {
    const parts: Part[] = []
    const now = Date.now()
    let left = CHARS_MAX
    for (const lease of this.waiting) {
      if (parts.length === PARTS_MAX || left <= 0) break
      const ops = lease.take(left)
      for (const op of ops) left -= op.text.length
      if (!lease.hasMore()) this.waiting.delete(lease)
      lease.saidAt = now
      parts.push({ lease, ops })
    }
    return parts
  }

  private giveUp(parts: Part[]): void {
    for (const { lease, ops } of parts) {
      if (ops.length > 0) lease.unreachable()
    }
  }

  /** What came of each part; undefined: nobody says. */
  private async commit(parts: Part[]): Promise<Committed[] | undefined> {
    const body = bodyOf(parts)
    const begin = Date.now()
    for (let tries = 0, refused = 0; ; tries++) {
      let rest = Math.min(2000, 50 * 2 ** Math.min(tries, 10))
      try {
        const answer = await this.transport({
          method: 'POST', url: this.url, body, timeoutMs: this.timeoutMs, mayRepeat: true,
          headers: { 'content-type': 'application/json', authorization: `Bearer ${parts[0]!.lease.token}` }
        })
        if (answer.status === 200) {
          const committed = committedOf(answer.text, parts)
          if (committed !== undefined) return committed
        } else if (answer.status === 413 && parts.length > 1) {
          return this.commitApart(parts)
        } else if (answer.status < 500 && answer.status !== 429) {
          return undefined // whoever answers there does not know commits
        }
        rest = Math.min(5000, retryAfterMs(answer.retryAfter) ?? rest)
      } catch (error) {
        if (error instanceof NoAnswer && !error.sent && ++refused === REFUSED_TRIES_MAX) return undefined
        if (tries === 0) continue // most likely the other side had closed the connection: another one is made
      }
      if (Date.now() - begin + rest > this.retryForMs) return undefined
      await pause(rest)
    }
  }

  /** Together they are too much for a request. */
  private async commitApart(parts: Part[]): Promise<Committed[] | undefined> {
    const all: Committed[] = []
    for (const part of parts) {
      const committed = await this.commit([part])
      // Some may be committed, which is no harm: their calls say it again in their answers.
      if (committed === undefined) return undefined
      all.push(committed[0]!)
    }
    return all
  }
}

function bodyOf(parts: Part[]): string {
  let body = '{"commits":['
  for (let i = 0; i < parts.length; i++) {
    const { lease, ops } = parts[i]!
    body += `${i === 0 ? '' : ','}{"token":${JSON.stringify(lease.token)},"ops":[`
    for (let j = 0; j < ops.length; j++) body += j === 0 ? ops[j]!.text : `,${ops[j]!.text}`
    body += ']}'
  }
  return body + ']}'
}

/** What was answered, if it fits what was asked. */
function committedOf(text: string, parts: Part[]): Committed[] | undefined {
  let all: unknown
  try {
    all = (JSON.parse(text) as { commits?: unknown }).commits
  } catch {
    return undefined
  }
  if (!Array.isArray(all) || all.length !== parts.length) return undefined
  for (let i = 0; i < parts.length; i++) {
    const one = all[i] as Partial<{ code: string, results: unknown[] }> | null
    const fits = typeof one?.code === 'string' || Array.isArray(one?.results) && one.results.length === parts[i]!.ops.length
    if (!fits) return undefined
  }
  return all as Committed[]
}

function pause(ms: number): Promise<void> {
  return new Promise(resolve => setTimeout(resolve, ms))
}
