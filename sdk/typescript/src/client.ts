// StackShift: what a program holds in its hand. It starts runs, sends events, looks and controls; and it serves jobs.

import { durationMs, type Duration } from './duration.js'
import { StackShiftError } from './errors.js'
import { Api, fetchTransport, ownTransport, type CallOptions, type Fetch, type Transport } from './http.js'
import { Job, Jobs, type Handler, type JobOptions } from './job.js'
import { argumentText } from './json.js'
import { env, uuid } from './platform.js'
import { Runs } from './runs.js'
import { Schedules } from './schedules.js'
import {
  fetchHandler, nodeHandler, serve, type EndpointSetup, type HandlerOptions, type NodeListener, type ServeOptions,
  type Serving
} from './serve.js'
import { StateClient } from './state.js'
import { startBody } from './step.js'
import type { Backoff, StartedRun, StartOptions, StartRequest } from './types.js'

/**
 * The settings of a StackShift.
 *
 * @example
 * const stackshift = new StackShift({ baseUrl: 'https://durable.example.com', retryFor: '5s', version: process.env.GIT_SHA })
 */
export interface StackShiftOptions {
  /** Unless given, STACKSHIFT_API_KEY. A program that only serves with a signing secret needs none. */
  apiKey?: string
  /** Where durable-server is; unless given, STACKSHIFT_URL, else http://127.0.0.1:7070. */
  baseUrl?: string
  /** Of the code of its jobs, stored with their runs; unless given, STACKSHIFT_VERSION. */
  version?: string
  /** How long one try of a call may take; 30 s unless given. */
  timeout?: Duration
  /** How long a call is repeated where that is safe; 30 s unless given. */
  retryFor?: Duration
  /** Speaks HTTP instead of Node's own client. */
  fetch?: Fetch
  /** Gets what somebody should know; `console.warn` unless given. */
  onWarning?: (message: string) => void
}

/**
 * What an event is sent with.
 *
 * @example
 * await stackshift.events.send('order.paid', { total: 7 }, { correlationKey: 'order:1', idempotencyKey: 'paid:order:1' })
 */
export interface EventOptions extends CallOptions {
  /** Only waits for the same key get it; without one, only waits without a key. */
  correlationKey?: string
  /** Makes a repeated event one. Unless given, the SDK makes one up, so that its own repeats are safe. */
  idempotencyKey?: string
}

/** `stackshift.events`. */
export interface Events {
  /**
   * Sends an event to all runs that wait for its name and key, or will.
   *
   * @example
   * await stackshift.events.send('email.verified', { userId: '123' },
   *   { correlationKey: 'user:123', idempotencyKey: 'email.verified:user:123' })
   */
  send(name: string, payload?: unknown, options?: EventOptions): Promise<{ id: string, created: boolean }>
}

/** The settings of a queue. What is left out stays; 0 takes a limit away. */
export interface QueueSettings {
  concurrency?: number
  keyConcurrency?: number
  rateLimit?: number
  ratePeriod?: string
  keyRateLimit?: number
  fairBy?: string
  weights?: Record<string, number>
  maxAttempts?: number
  backoff?: Backoff
  deadLetterQueue?: string
}

const KEY_TTL = '1d' // of keys that the SDK makes up: its repeats come within seconds

/**
 * Durable Jobs, for one namespace.
 *
 * @example
 * import { StackShift } from '@stackshift-cloud/jobs'
 * const stackshift = new StackShift({ apiKey: process.env.STACKSHIFT_API_KEY! })
 *
 * stackshift.job<{ name: string }>('greet', async ({ payload, step }) => {
 *   await step.sleep('10s')
 *   return step.run('greeting', () => `hello, ${payload.name}`)
 * })
 * await stackshift.serve({ port: 3000 })
 * await stackshift.start('greet', { name: 'Ada' })
 */
export class StackShift {
  /** Runs, looked at and controlled. */
  readonly runs: Runs
  /** The namespace's state. */
  readonly state: StateClient
  /** Recurring starts. */
  readonly schedules: Schedules
  /** Durable signals. */
  readonly events: Events = { send: (name, payload, options) => this.#send(name, payload, options) }
  readonly #api: Api
  readonly #setup: EndpointSetup

  constructor(options: StackShiftOptions = {}) {
    const { fetch } = options
    let transport: Promise<Transport> | undefined
    const transportOf = (): Promise<Transport> =>
      transport ??= fetch === undefined ? ownTransport() : Promise.resolve(fetchTransport(fetch))
    this.#api = new Api({
      baseUrl: (options.baseUrl ?? env('STACKSHIFT_URL') ?? 'http://127.0.0.1:7070').replace(/\/+$/, ''),
      apiKey: options.apiKey || env('STACKSHIFT_API_KEY'),
      transport: transportOf,
      timeoutMs: durationMs(options.timeout ?? '30s', 'timeout'),
      retryForMs: durationMs(options.retryFor ?? '30s', 'retryFor')
    })
    this.#setup = {
      jobs: new Jobs(options.version ?? env('STACKSHIFT_VERSION') ?? null),
      transport: transportOf,
      warn: options.onWarning ?? (message => console.warn(`stackshift: ${message}`))
    }
    this.runs = new Runs(this.#api)
    this.state = new StateClient(this.#api)
    this.schedules = new Schedules(this.#api)
  }

  /**
   * Starts a run. With an `idempotencyKey`, a repeated start gives the same run, with `created` false.
   *
   * @example
   * const run = await stackshift.start('send-verification-email', { userId: 'user_123', email: 'ada@example.com' },
   *   { queueName: 'emails', idempotencyKey: 'verify:user_123', idempotencyTtl: '30d' })
   */
  async start<P, R>(job: Job<P, R>, payload: P, options?: StartOptions): Promise<StartedRun<P, R>>
  async start<P = unknown, R = unknown>(job: string, payload?: P, options?: StartOptions): Promise<StartedRun<P, R>>
  async start<P, R>(job: string | Job<P, R>, payload?: P, options: StartOptions = {}): Promise<StartedRun<P, R>> {
    const own = needsKey(options) ? `sdk:${await uuid()}` : undefined
    const text = startText(typeof job === 'string' ? job : job.name, payload, options, own)
    const { body } = await this.#api.call<StartedRun<P, R>>('POST', '/v1/runs',
      { body: text, signal: options.signal, repeat: 'safe' })
    return own === undefined ? body : { ...body, created: true } // nobody else has this key: a repeat found our own run
  }

  /**
   * Starts up to 1,000 runs, all or none.
   *
   * @example
   * await stackshift.startMany(rows.map(row => ({ job: 'import-row', payload: row, idempotencyKey: `row:${row.id}` })))
   */
  async startMany(starts: readonly StartRequest[], options: CallOptions = {}): Promise<{ id: string, created: boolean }[]> {
    const own = `sdk:${await uuid()}`
    const texts = starts.map(({ job, payload, ...rest }, i) =>
      startText(job, payload, rest, needsKey(rest) ? `${own}:${i}` : undefined))
    const { body } = await this.#api.call<{ runs: { id: string, created: boolean }[] }>('POST', '/v1/runs/batch',
      { signal: options.signal, body: `{"runs":[${texts.join(',')}]}`, repeat: 'safe' })
    return body.runs.map((run, i) => needsKey(starts[i]!) ? { ...run, created: true } : run)
  }

  /**
   * A queue, to start runs in it, and to control it.
   *
   * @example
   * await stackshift.queue('payments').enqueue('provisionAfterPayment', { paymentId: 'pay_123' },
   *   { maxAttempts: 6, idempotencyKey: 'payment:pay_123:provision' })
   */
  queue(name: string): Queue {
    return new Queue(name, this, this.#api)
  }

  /**
   * Says what a job does. Its handler is called once an attempt, and again after each wait; what its steps did is
   * remembered. Give back the Job to `start` or `step.runJob` for typed payloads.
   *
   * @example
   * stackshift.job<{ userId: string }>('onboard', async ({ payload, step }) => {
   *   const user = await step.run('create-user', () => createUser(payload.userId))
   *   await step.waitForEvent('email.verified', { correlationKey: `user:${payload.userId}`, timeout: '24h' })
   *   return { onboarded: user.id }
   * })
   *
   * @example
   * stackshift.job('report', { maxAttempts: 3, onFailure: ({ error }) => page(error.message) }, makeReport)
   */
  // The payload is what the caller says it is; without a word it can be anything, read without a check.
  job<P = any, R = unknown>(name: string, handler: Handler<P, R>): Job<P, R>
  job<P = any, R = unknown>(name: string, options: JobOptions<P>, handler: Handler<P, R>): Job<P, R>
  job<P, R>(name: string, second: JobOptions<P> | Handler<P, R>, third?: Handler<P, R>): Job<P, R> {
    const [options, handler] = typeof second === 'function' ? [{}, second] : [second ?? {}, third]
    const job = new Job<P, R>(name, options, handler as Handler<P, R>,
      (jobName, payload, startOptions) => this.start(jobName, payload, startOptions))
    this.#setup.jobs.add(job)
    return job
  }

  /**
   * Serves the jobs on a port, and registers them: the API key gets the endpoint its signing secret. With a
   * `signingSecret` (or STACKSHIFT_SIGNING_SECRET) it does not register, and takes calls that this secret has signed.
   *
   * @example
   * const serving = await stackshift.serve({ port: 3000, url: 'https://jobs.example.com' })
   * process.once('SIGTERM', () => serving.close())
   */
  serve(options: ServeOptions): Promise<Serving> {
    return serve(this.#setup, this.#api, options)
  }

  /**
   * The jobs as a listener of Node's http, or as a route of Express. It needs the body as it came: mount it before
   * any body parser.
   *
   * @example
   * app.all('/jobs', stackshift.nodeHandler())
   * app.use(express.json())
   */
  nodeHandler(options: HandlerOptions = {}): NodeListener {
    return nodeHandler(this.#setup, options)
  }

  /**
   * The jobs as a function from Request to Response, for every runtime that has fetch and Web Crypto.
   *
   * @example
   * export default { fetch: stackshift.fetchHandler() }
   *
   * @example
   * const handler = stackshift.fetchHandler() // in Next.js: app/api/jobs/route.ts
   * export { handler as GET, handler as POST }
   */
  fetchHandler(options: HandlerOptions = {}): (request: Request) => Promise<Response> {
    return fetchHandler(this.#setup, options)
  }

  /** Forgets an idempotency key, so that the next start with it is a new run. False: it was not known. */
  async releaseKey(idempotencyKey: string, options: CallOptions = {}): Promise<boolean> {
    try {
      await this.#api.call('DELETE', `/v1/idempotency-keys/${encodeURIComponent(idempotencyKey)}`, options)
      return true
    } catch (error) {
      if (error instanceof StackShiftError && error.status === 404) return false
      throw error
    }
  }

  async #send(name: string, payload: unknown, options: EventOptions = {}): Promise<{ id: string, created: boolean }> {
    const own = options.idempotencyKey === undefined ? `sdk:${await uuid()}` : undefined
    const payloadText = payload === undefined ? '' : `"payload":${argumentText(payload, `the payload of event "${name}"`)},`
    const keys = JSON.stringify({
      name, correlationKey: options.correlationKey, idempotencyKey: own ?? options.idempotencyKey
    })
    const { body } = await this.#api.call<{ id: string, created: boolean }>('POST', '/v1/events',
      { signal: options.signal, body: `{${payloadText}${keys.slice(1)}`, repeat: 'safe' })
    return own === undefined ? body : { ...body, created: true }
  }
}

/** The options of a start in a queue. */
export type EnqueueOptions = Omit<StartOptions, 'queueName'>

/**
 * A queue as `stackshift.queue()` gives it.
 *
 * @example
 * const emails = stackshift.queue('emails')
 * await emails.set({ concurrency: 20, maxAttempts: 8, deadLetterQueue: 'emails.dead' })
 * await emails.enqueue('send', { to: 'ada@example.com' })
 */
export class Queue {
  /** Made by StackShift. @internal */
  constructor(readonly name: string, private readonly stackshift: StackShift, private readonly api: Api) {}

  /** Starts a run in this queue; as `stackshift.start`. */
  enqueue<P, R>(job: Job<P, R>, payload: P, options?: EnqueueOptions): Promise<StartedRun<P, R>>
  enqueue<P = unknown, R = unknown>(job: string, payload?: P, options?: EnqueueOptions): Promise<StartedRun<P, R>>
  enqueue<P, R>(job: string | Job<P, R>, payload?: P, options: EnqueueOptions = {}): Promise<StartedRun<P, R>> {
    const name = typeof job === 'string' ? job : job.name
    return this.stackshift.start<P, R>(name, payload, { ...options, queueName: this.name })
  }

  /** Changes its settings. */
  async set(settings: QueueSettings, options: CallOptions = {}): Promise<Record<string, unknown>> {
    return (await this.api.call<Record<string, unknown>>('PUT', this.path(), { ...options, body: settings })).body
  }

  /** No further run of it is leased; those in hand go on. */
  async pause(options: CallOptions = {}): Promise<void> {
    await this.api.call('POST', this.path('pause'), { ...options, repeat: 'safe' })
  }

  /** Ends a pause. */
  async resume(options: CallOptions = {}): Promise<void> {
    await this.api.call('POST', this.path('resume'), { ...options, repeat: 'safe' })
  }

  /** Lets the runs of this dead-letter queue go on, the oldest first. */
  async redrive(options: { maxRuns?: number, job?: string } & CallOptions = {}): Promise<{ count: number }> {
    const { signal, ...body } = options
    return (await this.api.call<{ count: number }>('POST', this.path('redrive'), { signal, body })).body
  }

  private path(action?: string): string {
    return `/v1/queues/${encodeURIComponent(this.name)}${action === undefined ? '' : `/${action}`}`
  }
}

/** A debounced start is one with its neighbours anyway. */
function needsKey(options: StartOptions): boolean {
  return options.idempotencyKey === undefined && options.debounce === undefined
}

function startText(job: string, payload: unknown, options: StartOptions, ownKey: string | undefined): string {
  if (typeof job !== 'string') {
    throw new StackShiftError('invalid_argument', 400, 'a job is named by a text, or is what stackshift.job() gave')
  }
  const body = JSON.stringify({
    job, ...startBody(options), ...(ownKey !== undefined && { idempotencyKey: ownKey, idempotencyTtl: KEY_TTL })
  })
  if (payload === undefined) return body
  return `${body.slice(0, -1)},"payload":${argumentText(payload, `the payload of job "${job}"`)}}`
}
