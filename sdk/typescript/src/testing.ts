// A job's test in memory: no server, no database, no waiting. The handler runs as it does in earnest, through the same
// replay and the same protocol; only the fleet's side is played here, with a clock that jumps from one due time to the
// next. Code of the user's own that looks at the real clock sees the real one.

import type { StepScope } from './ask.js'
import { Call, type CallSettings } from './call.js'
import type { Committer, Lease } from './commit.js'
import { durationMs, timeText, type Duration } from './duration.js'
import { errorJson, type ErrorJson } from './errors.js'
import { Job } from './job.js'
import { jsonText, type Kept } from './json.js'
import { platform } from './platform.js'
import { PROTOCOL, type CallRequest, type OpResult, type Remembered } from './protocol.js'
import type { StepFunction } from './step.js'
import type { Backoff, WaitingFor } from './types.js'

/** An event that a test sends. */
export interface TestEvent {
  name: string
  payload?: unknown
  correlationKey?: string
  /** How long after the run's start; unless given, it is there from the beginning. */
  after?: Duration
}

/** What a test gives to a job. */
export interface TestOptions<P> {
  payload?: P
  /** The events that are sent meanwhile. */
  events?: readonly TestEvent[]
  /** Stands in for steps, by name: a result, or a function that is called instead. */
  steps?: Readonly<Record<string, unknown>>
  /** What children give, by job: a result, a function of the payload, or a Job, which is then run. */
  jobs?: Readonly<Record<string, unknown>>
  /** The state at the beginning: values by key. */
  state?: Readonly<Record<string, unknown>>
  /** When the test begins; unless given, now. */
  now?: Date | string
  /** How many attempts; unless given, the job's own setting, else 5. */
  maxAttempts?: number
  tags?: Record<string, string>
  /** `often`: the handler is called anew after each durable call, which shows whether it takes the same way each time. */
  replay?: 'seldom' | 'often'
}

/** What a run has remembered. */
export interface TestStep {
  name: string
  kind: string
  result?: unknown
  error?: ErrorJson
}

/** What became of a run. */
export interface TestRun<R = unknown> {
  /** `waiting`: for an event that the test did not send, or for other code; `waitingFor` says which. */
  status: 'completed' | 'failed' | 'cancelled' | 'waiting'
  result: Kept<R> | undefined
  error: ErrorJson | undefined
  waitingFor: WaitingFor | undefined
  /** How many attempts it took. */
  attempts: number
  /** How often the handler was called. */
  calls: number
  steps: TestStep[]
  /** The events that it has sent. */
  sent: { name: string, payload: unknown, correlationKey: string | null }[]
  /** The children that it has started. */
  children: { job: string, payload: unknown }[]
  /** The state at the end. */
  state: Record<string, unknown>
  logs: { level: string, message: string, fields?: Record<string, unknown> }[]
  /** What it last said of its progress. */
  progress: unknown
  /** The time at the end. */
  now: Date
  /** How long it took, by the test's clock. */
  elapsedMs: number
}

/**
 * Runs a job to its end, or to where it waits for something that does not come.
 *
 * @example
 * import { testJob } from '@stackshift-cloud/jobs/testing'
 *
 * const run = await testJob(onboarding, {
 *   payload: { userId: '123' },
 *   steps: { 'create-user': { id: 7, email: 'ada@example.com' } },
 *   events: [{ name: 'email.verified', correlationKey: 'user:123', payload: { userId: '123' }, after: '2h' }]
 * })
 * assert.equal(run.status, 'completed')
 * assert.equal(run.elapsedMs, 2 * 3600_000)
 */
export async function testJob<P, R>(job: Job<P, R>, options: TestOptions<P> = {}): Promise<TestRun<R>> {
  const { asyncHooks } = await platform()
  const begin = options.now === undefined ? Date.now() : Date.parse(timeText(options.now, 'now'))
  const world = new World(begin, options)
  const storage = asyncHooks === undefined ? undefined : new asyncHooks.AsyncLocalStorage<StepScope>()
  const run = new TestedRun(world, job as unknown as Job, options, storage)
  await run.go(options.payload ?? {})
  return run.report(begin) as TestRun<R>
}

interface Op {
  op: string
  name: string
  [member: string]: unknown
}

interface Value {
  value: unknown
  version: number
  expiresAt: string | null
}

const CALLS_MAX = 100_000
const SUSPENDING: ReadonlySet<string> = new Set(['wait_event', 'wait_any', 'sleep', 'child', 'step_retry', 'park'])

/** What a run waits for, perhaps beside other things. */
interface Branch {
  at: number
  /** It is over, before the others. */
  over(): void
}

/** Of a branch that is not over: since when, and what came of the child. */
interface Begun {
  since: number
  child?: { at: number, outcome: OpResult }
}

/** What a run and its children have in common: the clock, the state, the events. */
class World {
  readonly state = new Map<string, Value>()
  readonly locks = new Map<string, { owner: string, until: number }>()
  readonly events: { id: string, at: number, event: TestEvent }[]
  readonly sent: TestRun['sent'] = []
  readonly children: TestRun['children'] = []
  private version = 0
  private ids = 0

  constructor(public now: number, options: Pick<TestOptions<unknown>, 'events' | 'state'>) {
    this.events = (options.events ?? []).map(event => {
      if (event.payload !== undefined) jsonText(event.payload, `the payload of event "${event.name}"`)
      return { id: this.id(), at: now + durationMs(event.after ?? 0, 'after'), event }
    })
    for (const [key, value] of Object.entries(options.state ?? {})) this.set(key, value, null)
  }

  id(): string {
    return `00000000-0000-7000-8000-${(++this.ids).toString(16).padStart(12, '0')}`
  }

  get(key: string): Value | undefined {
    const value = this.state.get(key)
    if (value?.expiresAt == null || Date.parse(value.expiresAt) > this.now) return value
    this.state.delete(key)
    return undefined
  }

  set(key: string, value: unknown, expiresAt: string | null): Value {
    const kept = { value, version: ++this.version, expiresAt }
    this.state.set(key, kept)
    return kept
  }
}

/** One run. As a committer it plays the server, in `go` the worker. */
class TestedRun implements Committer {
  readonly reachable = true
  private readonly id: string
  private readonly memory: Remembered[] = []
  private readonly tries: Record<string, number> = {}
  private readonly logs: TestRun['logs'] = []
  private readonly taken = new Set<string>()
  private readonly begun = new Map<string, Begun>()
  private readonly maxAttempts: number
  private attempt = 1
  private calls = 0
  private progress: unknown
  private ended: Partial<TestRun> | undefined

  constructor(private readonly world: World, private readonly job: Job,
    private readonly options: Omit<TestOptions<unknown>, 'payload'>, private readonly storage: CallSettings['storage']) {
    this.id = world.id()
    this.maxAttempts = options.maxAttempts ?? job.options.maxAttempts ?? 5
  }

  report(begin: number): TestRun {
    const { world } = this
    const state: Record<string, unknown> = {}
    for (const key of [...world.state.keys()]) {
      const value = world.get(key)
      if (value !== undefined) state[key] = value.value
    }
    return {
      status: 'waiting', result: undefined, error: undefined, waitingFor: undefined, ...this.ended,
      attempts: this.attempt, calls: this.calls, steps: this.memory as TestStep[], sent: world.sent,
      children: world.children, state, logs: this.logs, progress: this.progress, now: new Date(world.now),
      elapsedMs: world.now - begin
    }
  }

  /** Calls the handler until the run has ended, or waits for what does not come. */
  async go(payload: unknown): Promise<Partial<TestRun>> {
    const payloadText = jsonText(payload, 'the payload')
    while (this.ended === undefined) {
      if (++this.calls > CALLS_MAX) throw new Error(`the handler was called ${CALLS_MAX} times, and the run has not ended`)
      const call = new Call(this.request(payloadText), this.job, {
        committer: () => this, storage: this.storage, warn: () => {}, graceMs: 200, branchesGraceMs: 1000,
        standIn: (name, fn) => this.standIn(name, fn)
      })
      const answer = JSON.parse(await call.start()) as { ops: Op[], status: string, result?: unknown, error?: ErrorJson }
      const waits = answer.ops.filter(({ op }) => SUSPENDING.has(op))
      for (const op of answer.ops) if (!SUSPENDING.has(op.op)) this.apply(op)
      if (answer.status === 'completed') this.ended = { status: 'completed', result: answer.result as never }
      else if (answer.status === 'failed') this.failed(answer.error!)
      else if (answer.status === 'suspended') await this.suspended(waits)
    }
    return this.ended
  }

  // --- The server's side ---

  attach(): void {}

  detach(): void {}

  wake(lease: Lease): void {
    queueMicrotask(() => {
      const ops = lease.take(Infinity)
      if (ops.length > 0) lease.settle({ results: ops.map(({ text }) => this.apply(JSON.parse(text) as Op)) })
    })
  }

  read(ref: string): Promise<OpResult> {
    return Promise.reject(new Error(`there is no ref ${ref} in a test`))
  }

  private apply(op: Op): OpResult {
    if (op.op === 'log') {
      const { level, message, fields } = op as unknown as TestRun['logs'][number]
      this.logs.push({ level, message, ...(fields !== undefined && { fields }) })
      return {}
    }
    if (op.op === 'progress') {
      this.progress = op.value
      return {}
    }
    const known = this.memory.find(({ name }) => name === op.name)
    if (known !== undefined) return known.error === undefined ? { result: known.result } : { error: known.error }
    const outcome = this.do(op)
    this.memory.push({ name: op.name, kind: op.op, ...outcome })
    return op.op === 'step' ? {} : outcome
  }

  private do(op: Op): OpResult {
    if (op.op === 'step') return op.error === undefined ? { result: op.result } : { error: op.error as ErrorJson }
    if (op.op === 'state') return this.changeState(op)
    const sent = { name: op.event as string, payload: op.payload, correlationKey: op.correlationKey as string | null }
    const id = this.world.id()
    this.world.sent.push(sent)
    this.world.events.push({ id, at: this.world.now, event: { ...sent, correlationKey: sent.correlationKey ?? undefined } })
    return { result: { id } }
  }

  private changeState(op: Op): OpResult {
    const { world } = this
    const key = op.key as string
    const value = world.get(key)
    const lock = world.locks.get(key)
    const held = lock !== undefined && lock.until > world.now
    switch (op.action) {
      case 'get':
        return { result: value === undefined ? null : { ...value } }
      case 'set':
        if (op.ifVersion !== undefined && op.ifVersion !== (value?.version ?? 0)) {
          return conflict(`state '${key}' has version ${value?.version ?? 0}, not ${String(op.ifVersion)}`)
        }
        return { result: { version: world.set(key, op.value, op.expiresAt as string | null).version } }
      case 'delete':
        return { result: world.state.delete(key) }
      case 'increment': {
        const before = value?.value ?? 0
        if (typeof before !== 'number') return conflict(`state '${key}' is not a number`)
        const sum = before + (op.by as number)
        world.set(key, sum, op.expiresAt as string | null ?? value?.expiresAt ?? null)
        return { result: sum }
      }
      case 'lock':
        if (held && lock.owner !== this.id) return { result: false }
        world.locks.set(key, {
          owner: this.id, until: world.now + (op.ttl === null ? Infinity : durationMs(op.ttl as string, 'ttl'))
        })
        return { result: true }
      default: {
        const own = held && lock.owner === this.id
        if (own) world.locks.delete(key)
        return { result: own }
      }
    }
  }

  // --- The worker's side ---

  private request(payloadText: string): CallRequest {
    const request: CallRequest = {
      protocol: PROTOCOL,
      run: {
        id: this.id, job: this.job.name, queueName: 'default', attempt: this.attempt, maxAttempts: this.maxAttempts,
        createdAt: new Date(this.world.now).toISOString(), namespace: 'default', version: this.job.options.version ?? null,
        tags: this.options.tags ?? {}
      },
      payload: JSON.parse(payloadText), steps: this.memory, tries: this.tries,
      commit: this.options.replay === 'often' ? null : { url: 'memory:', token: this.id }
    }
    return JSON.parse(JSON.stringify(request)) as CallRequest // nothing of it is shared with the handler
  }

  private standIn(name: string, fn: StepFunction<unknown>): StepFunction<unknown> {
    const steps = this.options.steps ?? {}
    const key = name in steps ? name : name.replace(/#\d+$/, '')
    if (!(key in steps)) return fn
    const other = steps[key]
    return typeof other === 'function' ? other as StepFunction<unknown> : () => other
  }

  private failed(error: ErrorJson): void {
    if (error.retryable === false || this.attempt >= this.maxAttempts) {
      this.ended = { status: 'failed', error }
      return
    }
    this.world.now += delayMs(error.retryAfter, this.job.options.backoff, {}, this.attempt)
    this.attempt++
  }

  private async suspended(ops: Op[]): Promise<void> {
    const { world } = this
    const [op] = ops as [Op]
    if (op.op === 'park') {
      this.ended = {
        status: 'waiting',
        waitingFor: { kind: 'version', step: op.name, expected: op.expected as string, found: op.found as string }
      }
    } else if (op.op === 'step_retry') {
      world.now += delayMs(op.retryAfter as string | undefined, this.job.options.backoff,
        op.backoff as Backoff | undefined, op.tries as number)
      this.tries[op.name] = op.tries as number
    } else {
      let first: Branch | undefined
      for (const one of ops) {
        const branch = await this.branch(one)
        if (first === undefined || branch.at < first.at) first = branch
      }
      if (first!.at < Infinity) world.now = Math.max(world.now, first!.at)
      first!.over()
    }
  }

  /** When is what a run waits for over, if nothing else is before it? What it has begun already goes on. */
  private async branch(op: Op): Promise<Branch> {
    const { world } = this
    const since = this.begun.get(op.name)?.since ?? world.now
    const begun: Begun = this.begun.get(op.name) ?? { since }
    this.begun.set(op.name, begun)
    if (op.op === 'sleep') {
      const at = op.until === undefined ? since + durationMs(op.duration as string, 'duration')
        : Math.max(since, Date.parse(op.until as string))
      return { at, over: () => this.remember(op, { result: null }) }
    }
    if (op.op === 'child') {
      if (begun.child === undefined) {
        world.children.push({ job: op.job as string, payload: op.payload })
        const outcome = await this.child(op.job as string, op.payload)
        begun.child = { at: world.now, outcome }
        world.now = since // the children beside it begin now too
      }
      const { at, outcome } = begun.child
      return { at, over: () => this.remember(op, outcome) }
    }
    return this.wait(op, since)
  }

  private remember(op: Op, outcome: OpResult): void {
    this.begun.delete(op.name)
    this.memory.push({ name: op.name, kind: op.op, ...outcome })
  }

  private wait(op: Op, since: number): Branch {
    const { world } = this
    const patterns = op.op === 'wait_any' ? op.events as { event: string, correlationKey: string | null }[]
      : [{ event: op.event as string, correlationKey: op.correlationKey as string | null }]
    const deadline = op.timeout === null ? Infinity : since + durationMs(op.timeout as string, 'timeout')
    const [first] = world.events
      .filter(({ id, at, event }) => !this.taken.has(id) && at <= deadline && patterns.some(pattern =>
        pattern.event === event.name && (pattern.correlationKey ?? null) === (event.correlationKey ?? null)))
      .sort((a, b) => a.at - b.at)
    if (first !== undefined) {
      const { id, at, event } = first
      return {
        at,
        over: () => {
          this.taken.add(id)
          this.remember(op, {
            result: {
              timedOut: false, id, name: event.name, correlationKey: event.correlationKey ?? null,
              payload: event.payload ?? {}, receivedAt: new Date(world.now).toISOString()
            }
          })
        }
      }
    }
    return {
      at: deadline,
      over: () => {
        const { event, correlationKey } = patterns[0]!
        if (deadline === Infinity) {
          const waitingFor = { kind: 'event' as const, event, correlationKey: correlationKey ?? undefined }
          this.ended = { status: 'waiting', waitingFor }
        } else if (op.onTimeout === 'continue') this.remember(op, { result: { timedOut: true } })
        else if (op.onTimeout === 'cancel') this.ended = { status: 'cancelled' }
        else {
          const message = `no event ${patterns.map(({ event }) => event).join(' or ')} came within ${String(op.timeout)}`
          this.ended = { status: 'failed', error: { name: 'WaitTimeoutError', message, step: op.name, retryable: false } }
        }
      }
    }
  }

  private async child(name: string, payload: unknown): Promise<OpResult> {
    const jobs = this.options.jobs ?? {}
    if (!(name in jobs)) {
      throw new Error(`the handler started job ${name}: say in jobs what it gives, as { '${name}': result }`)
    }
    const other = jobs[name]
    if (other instanceof Job) {
      const { ended } = await this.runChild(other as Job, payload)
      if (ended.status === 'completed') return { result: ended.result ?? null }
      return { error: ended.error ?? { name: 'Error', message: `job ${name} is ${ended.status}` } }
    }
    try {
      const result = typeof other === 'function' ? await (other as (payload: unknown) => unknown)(payload) : other
      return { result: JSON.parse(jsonText(result, `the result of job "${name}"`)) }
    } catch (error) {
      return { error: errorJson(error) }
    }
  }

  private async runChild(job: Job, payload: unknown): Promise<{ ended: Partial<TestRun> }> {
    const child = new TestedRun(this.world, job, { ...this.options, maxAttempts: undefined }, this.storage)
    return { ended: await child.go(payload) }
  }
}

function conflict(message: string): OpResult {
  return { error: { name: 'StackShiftError', code: 'conflict', message } }
}

/** The pause before the next try, without jitter. */
function delayMs(retryAfter: string | undefined, ofJob: Backoff = {}, ofStep: Backoff = {}, tries: number): number {
  if (retryAfter !== undefined) return durationMs(retryAfter, 'retryAfter')
  const { initial, factor, max } = { initial: '1s', factor: 2, max: '1h', ...ofJob, ...ofStep }
  return Math.min(durationMs(max, 'max'), durationMs(initial, 'initial') * factor ** (tries - 1))
}
