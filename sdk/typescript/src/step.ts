// The durable calls of a handler: steps, waits, sleeps, children, events. Each is remembered under its name; what is
// remembered comes back at once, and its function is not called again.

import type { Ask, StepScope } from './ask.js'
import type { Call } from './call.js'
import { durationMs, durationText, timeText, type Duration } from './duration.js'
import { errorFrom, errorJson, MisuseError, StackShiftError } from './errors.js'
import type { Job } from './job.js'
import { jsonText, kept, type Kept } from './json.js'
import { stepOp } from './protocol.js'
import type { Backoff, ReceivedEvent, StartOptions, TimedOut } from './types.js'

/** What a step's function is given. */
export interface StepContext {
  /** The step, as the run remembers it: `charge`, then `charge#2`. */
  readonly name: string
  /** Which try of the step this is; the first is 1. */
  readonly attempt: number
  /** The same for each try of this step of this run, and for nothing else: for services that take such a key. */
  readonly idempotencyKey: string
  /** Aborts when the step is over its time, or the run is cancelled. */
  readonly signal: AbortSignal
}

/**
 * A step's function. What it returns is kept as JSON.
 *
 * @example
 * const pay: StepFunction<{ receipt: string }> = ({ idempotencyKey }) => payments.charge(700, { idempotencyKey })
 */
export type StepFunction<R> = (context: StepContext) => R | PromiseLike<R>

/**
 * The settings of a step: with them it is tried again by itself, before the attempt is.
 *
 * @example
 * const patient: StepOptions = { maxAttempts: 8, backoff: { initial: '500ms', max: '1m' }, timeout: '2m' }
 */
export interface StepOptions {
  /** How many tries; over 1, or with `backoff`, the step has a policy of its own (5 unless given). */
  maxAttempts?: number
  /** How long to wait between tries. No worker is held meanwhile. */
  backoff?: Backoff
  /** Of one try. */
  timeout?: Duration
}

/**
 * The settings of a wait.
 *
 * @example
 * const answer = await step.waitForEvent('approved', { correlationKey: 'order:1', timeout: '3d', onTimeout: 'cancel' })
 */
export interface WaitOptions<T extends 'fail' | 'continue' | 'cancel' = 'fail' | 'continue' | 'cancel'> {
  /** The name under which it is remembered; unless given, the event's. */
  name?: string
  /** Only events with this key; unless given, only events without a key. */
  correlationKey?: string
  /** How long to wait; unless given, without end. */
  timeout?: Duration
  /** What to do when nothing came: `fail` the run at once (unless given), `continue`, or `cancel` the run. */
  onTimeout?: T
}

/** The settings of a wait for several events, which have keys of their own. */
export type AnyWaitOptions<T extends 'fail' | 'continue' | 'cancel' = 'fail' | 'continue' | 'cancel'> =
  Omit<WaitOptions<T>, 'correlationKey'>

/** One of several events that a wait is for. */
export interface EventPattern {
  event: string
  correlationKey?: string
}

/** The settings of a child run: those of a start, and the name under which it is remembered. */
export interface ChildOptions extends Omit<StartOptions, 'signal' | 'debounce'> {
  /** The name under which it is remembered; unless given, the job's. */
  name?: string
}

/** The settings of an event that a handler sends. */
export interface StepEventOptions {
  /** The name under which it is remembered; unless given, `send:` and the event's. */
  name?: string
  correlationKey?: string
  idempotencyKey?: string
}

const NO_OPTIONS: StepOptions = {}

/**
 * A handler's durable calls. Await each of them, in the same order every time; several at once in `Promise.all`, each
 * under a name of its own: steps, waits and children then go on side by side. `Promise.race` over waits, sleeps and
 * children goes on with the first.
 *
 * @example
 * stackshift.job('trip', async ({ step }) => {
 *   const [hotel, flight] = await Promise.all([step.run('hotel', bookHotel), step.run('flight', bookFlight)])
 *   await step.sleep('1d')
 *   return { hotel, flight }
 * })
 */
export class Step {
  readonly #call: Call

  /** Made for each call of a handler. @internal */
  constructor(call: Call) {
    this.#call = call
  }

  /**
   * Calls `fn`, keeps its result, and gives it back: also in later attempts, without calling `fn` again. The result
   * comes back as JSON has it (a Date as a string), the first time too.
   *
   * Without `options`, an error of `fn` is the handler's: uncaught, it ends the attempt. With them, the step is tried
   * again first, and its last error is remembered.
   *
   * @example
   * const user = await step.run('create-user', () => createUser(payload))
   * const sent = await step.run('send-mail', { maxAttempts: 8, backoff: { initial: '1s' }, timeout: '30s' },
   *   ({ signal, idempotencyKey }) => sendMail(user, { signal, idempotencyKey }))
   */
  run<R>(name: string, fn: StepFunction<R>): Promise<Kept<R>>
  run<R>(name: string, options: StepOptions, fn: StepFunction<R>): Promise<Kept<R>>
  run<R>(name: string, second: StepOptions | StepFunction<R>, third?: StepFunction<R>): Promise<Kept<R>> {
    const [options, fn] = typeof second === 'function' ? [NO_OPTIONS, second] : [second ?? NO_OPTIONS, third]
    return this.#call.ask('step', name, `step.run("${name}", …)`, ask => {
      if (typeof fn !== 'function') throw invalid(`step ${name} has no function; step.run(name, fn) is right`)
      new Try(this.#call, ask, options, fn).begin()
    })
  }

  /**
   * Waits for an event by name and key, without holding a worker. An event that was sent while the run existed counts,
   * even before the wait. With `onTimeout: 'continue'` the result says whether it timed out.
   *
   * @example
   * const event = await step.waitForEvent<{ userId: string }>('email.verified',
   *   { correlationKey: `user:${payload.userId}`, timeout: '24h' })
   * await step.run('unlock', () => unlock(event.payload.userId))
   *
   * @example
   * const answer = await step.waitForEvent<{ ok: boolean }>('approved', { timeout: '3d', onTimeout: 'continue' })
   * if (answer.timedOut) await step.run('remind', remind)
   */
  waitForEvent<T = unknown>(event: string,
    options: WaitOptions<'continue'> & { onTimeout: 'continue' }): Promise<ReceivedEvent<T> | TimedOut>
  waitForEvent<T = unknown>(event: string, options?: WaitOptions<'fail' | 'cancel'>): Promise<ReceivedEvent<T>>
  waitForEvent<T = unknown>(event: string, options?: WaitOptions): Promise<ReceivedEvent<T> | TimedOut>
  waitForEvent<T = unknown>(event: string, options: WaitOptions = {}): Promise<ReceivedEvent<T> | TimedOut> {
    const name = options.name ?? event
    return this.#call.ask('wait_event', name, `step.waitForEvent("${event}", …)`, ask => {
      this.#suspend({
        op: 'wait_event', name: ask.name, event, correlationKey: options.correlationKey ?? null, ...timeoutOf(options)
      })
    }, received)
  }

  /**
   * Waits for the first of several events. The result's `name` and `correlationKey` say which one came.
   *
   * @example
   * const event = await step.waitForAny<{ by: string }>(['order.paid', { event: 'order.cancelled', correlationKey: 'o-1' }],
   *   { timeout: '7d' })
   * if (event.name === 'order.paid') await step.run('ship', ship)
   */
  waitForAny<T = unknown>(events: readonly (string | EventPattern)[],
    options: AnyWaitOptions<'continue'> & { onTimeout: 'continue' }): Promise<ReceivedEvent<T> | TimedOut>
  waitForAny<T = unknown>(events: readonly (string | EventPattern)[],
    options?: AnyWaitOptions<'fail' | 'cancel'>): Promise<ReceivedEvent<T>>
  waitForAny<T = unknown>(events: readonly (string | EventPattern)[],
    options?: AnyWaitOptions): Promise<ReceivedEvent<T> | TimedOut>
  waitForAny<T = unknown>(events: readonly (string | EventPattern)[],
    options: AnyWaitOptions = {}): Promise<ReceivedEvent<T> | TimedOut> {
    const patterns = events.map(event => typeof event === 'string' ? { event } : event)
    const name = options.name ?? patterns.map(({ event }) => event).join('/').slice(0, 200)
    return this.#call.ask('wait_any', name, 'step.waitForAny([…])', ask => {
      this.#suspend({
        op: 'wait_any', name: ask.name, ...timeoutOf(options),
        events: patterns.map(({ event, correlationKey }) => ({ event, correlationKey: correlationKey ?? null }))
      })
    }, received)
  }

  /**
   * Sleeps, without holding a worker: a second or a year.
   *
   * @example
   * await step.sleep('10m')
   * await step.sleep('before-the-survey', '3d')
   */
  sleep(duration: Duration): Promise<void>
  sleep(name: string, duration: Duration): Promise<void>
  sleep(first: Duration, second?: Duration): Promise<void> {
    const [name, duration] = second === undefined ? ['sleep', first] : [String(first), second]
    const what = `step.sleep(${JSON.stringify(first)}${second === undefined ? '' : ', …'})`
    return this.#call.ask('sleep', name, what, ask => {
      this.#suspend({ op: 'sleep', name: ask.name, duration: durationText(duration, 'duration') })
    }, nothing)
  }

  /**
   * Sleeps until a point of time; one that is past ends it at once.
   *
   * @example
   * await step.sleepUntil(payload.trialEnd)
   * await step.sleepUntil('morning', new Date('2026-05-06T09:00:00Z'))
   */
  sleepUntil(time: Date | string): Promise<void>
  sleepUntil(name: string, time: Date | string): Promise<void>
  sleepUntil(first: Date | string, second?: Date | string): Promise<void> {
    const [name, time] = second === undefined ? ['sleep', first] : [String(first), second]
    return this.#call.ask('sleep', name, 'step.sleepUntil(…)', ask => {
      this.#suspend({ op: 'sleep', name: ask.name, until: timeText(time, 'time') })
    }, nothing)
  }

  /**
   * Starts a run of another job as a child, waits for its end, and gives its result. If it fails, its error is thrown.
   * The child is cancelled with this run.
   *
   * @example
   * const invoice = await step.runJob(makeInvoice, { orderId: payload.orderId })
   * const report = await step.runJob<{ url: string }>('report', { month: 5 }, { queueName: 'slow' })
   */
  runJob<P, R>(job: Job<P, R>, payload: P, options?: ChildOptions): Promise<Kept<R>>
  runJob<R = unknown>(job: string, payload?: unknown, options?: ChildOptions): Promise<R>
  runJob(job: string | { readonly name: string }, payload?: unknown, options: ChildOptions = {}): Promise<never> {
    const jobName = typeof job === 'string' ? job : job.name
    return this.#call.ask('child', options.name ?? jobName, `step.runJob("${jobName}", …)`, ask => {
      const payloadText = payload === undefined ? '{}' : jsonText(payload, `the payload of job "${jobName}"`)
      const { name, ...rest } = options
      this.#call.suspend(`{"op":"child","name":${JSON.stringify(ask.name)},"job":${JSON.stringify(jobName)},`
        + `"payload":${payloadText},"options":${JSON.stringify(startBody(rest))}}`)
    })
  }

  /**
   * Sends an event, once: it is committed with the step that it is.
   *
   * @example
   * await step.sendEvent('order.shipped', { parcel: 7 }, { correlationKey: `order:${payload.orderId}` })
   */
  sendEvent(event: string, payload?: unknown, options: StepEventOptions = {}): Promise<{ id: string }> {
    const call = this.#call
    return call.ask('send_event', options.name ?? `send:${event}`, `step.sendEvent("${event}", …)`, ask => {
      const payloadText = payload === undefined ? '{}' : jsonText(payload, `the payload of event "${event}"`)
      const keys = JSON.stringify({
        correlationKey: options.correlationKey ?? null, idempotencyKey: options.idempotencyKey ?? null
      })
      call.enter()
      call.commit(`{"op":"send_event","name":${JSON.stringify(ask.name)},"event":${JSON.stringify(event)},`
        + `"payload":${payloadText},${keys.slice(1)}`, result => call.give(ask, result))
    })
  }

  /**
   * For a change of a handler whose runs are under way: false for a run that has gone by this place without the
   * change, true for all others, and the same each time in one run. It may be taken out, with the old branch, once no
   * run is left that answers false.
   *
   * @example
   * if (step.patched('check-address')) await step.run('check-address', () => check(payload.address))
   */
  patched(name: string): boolean {
    return this.#call.patched(name)
  }

  #suspend(op: Record<string, unknown>): void {
    this.#call.suspend(JSON.stringify(op))
  }
}

/** One try of a step: its function, its time, and what comes of it. */
class Try {
  private readonly startedAt = new Date()
  private readonly scope: StepScope
  private readonly attempt: number
  private controller: AbortController | undefined
  private relay: (() => void) | undefined
  private timer: ReturnType<typeof setTimeout> | undefined
  private over = false

  constructor(private readonly call: Call, private readonly ask: Ask, private readonly options: StepOptions,
    private readonly fn: StepFunction<unknown>) {
    this.scope = { call, step: ask.name, running: true }
    this.attempt = call.tries(ask.name) + 1
  }

  begin(): void {
    const { call, ask, options } = this
    const timeoutMs = options.timeout === undefined ? undefined : durationMs(options.timeout, 'timeout')
    call.enter()
    if (timeoutMs !== undefined) {
      this.timer = setTimeout(() => {
        const error = new Error(`step ${ask.name} did not end within ${options.timeout}`)
        error.name = 'StepTimeoutError'
        this.controller?.abort(error)
        this.failed(error)
      }, timeoutMs)
    }
    const fn = call.functionOf(ask.name, this.fn)
    let returned: unknown
    try {
      returned = call.storage === undefined ? this.plainly(fn) : call.storage.run(this.scope, fn, this.context())
    } catch (error) {
      return this.failed(error)
    }
    if (isThenable(returned)) returned.then(value => this.done(value), error => this.failed(error))
    else this.done(returned)
  }

  private plainly(fn: StepFunction<unknown>): unknown {
    this.call.inStep++
    try {
      return fn(this.context())
    } finally {
      this.call.inStep--
    }
  }

  private context(): StepContext {
    const signal = (): AbortSignal => this.signal()
    return {
      name: this.ask.name,
      attempt: this.attempt,
      idempotencyKey: `${this.call.run.id}:${this.ask.name}`,
      get signal() { return signal() }
    }
  }

  /** The call's signal; with a time of its own, one that also aborts by that. */
  private signal(): AbortSignal {
    const { signal } = this.call
    if (this.timer === undefined) return signal
    if (this.controller === undefined) {
      const controller = this.controller = new AbortController()
      this.relay = () => controller.abort(signal.reason)
      if (signal.aborted) this.relay()
      else signal.addEventListener('abort', this.relay, { once: true })
    }
    return this.controller.signal
  }

  /** True the first time: a function that comes back after its time has nothing more to say. */
  private end(): boolean {
    if (this.over) return false
    this.over = true
    this.scope.running = false
    clearTimeout(this.timer)
    if (this.relay !== undefined) this.call.signal.removeEventListener('abort', this.relay)
    return true
  }

  private done(value: unknown): void {
    if (!this.end()) return
    const { call, ask } = this
    let text: string
    try {
      text = jsonText(value, `the result of step "${ask.name}"`)
    } catch (error) { // its function has been called, and would return the same again
      call.misused(ask, error as MisuseError)
      return call.leave()
    }
    call.commit(stepOp(ask.name, text, undefined, this.startedAt), result => {
      if (result.error) call.give(ask, result)
      else call.resolve(ask, kept(value, text))
    })
  }

  private failed(thrown: unknown): void {
    if (!this.end()) return
    const { call, ask, options } = this
    const error = errorJson(thrown, ask.name)
    const triesMax = options.maxAttempts ?? (options.backoff === undefined ? 1 : 5)
    if (error.retryable !== false && this.attempt < triesMax) {
      call.suspend(JSON.stringify({
        op: 'step_retry', name: ask.name, error, backoff: options.backoff, tries: this.attempt, retryAfter: error.retryAfter
      }), true)
      return call.leave()
    }
    const op = stepOp(ask.name, undefined, error, this.startedAt)
    if (triesMax > 1) call.commit(op, () => call.reject(ask, errorFrom(error, ask.name)))
    else call.threw(ask, error, op)
  }
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return (typeof value === 'object' || typeof value === 'function') && value !== null
    && typeof (value as { then?: unknown }).then === 'function'
}

function invalid(detail: string): StackShiftError {
  return new StackShiftError('invalid_argument', 400, detail)
}

function nothing(): undefined {
  return undefined
}

/** A wait's result as the handler sees it. */
function received(result: unknown): unknown {
  return (result as { timedOut?: boolean } | null)?.timedOut ? { timedOut: true, payload: undefined } : result
}

function timeoutOf(options: Pick<WaitOptions, 'timeout' | 'onTimeout'>): { timeout: string | null, onTimeout: string } {
  const { timeout, onTimeout = 'fail' } = options
  if (!['fail', 'continue', 'cancel'].includes(onTimeout)) {
    throw invalid(`onTimeout '${String(onTimeout)}' is not known; fail, continue and cancel are`)
  }
  return { timeout: timeout === undefined ? null : durationText(timeout, 'timeout'), onTimeout }
}

/** A start's options as the API reads them. */
export function startBody(options: Omit<StartOptions, 'signal'>): Record<string, unknown> {
  const { idempotencyTtl, timeout, scheduledAt, debounce, ...body } = options as StartOptions & Record<string, unknown>
  delete body.signal
  if (idempotencyTtl !== undefined) body.idempotencyTtl = durationText(idempotencyTtl, 'idempotencyTtl')
  if (timeout !== undefined) body.timeout = durationText(timeout, 'timeout')
  if (scheduledAt !== undefined) body.scheduledAt = timeText(scheduledAt, 'scheduledAt')
  if (debounce !== undefined) {
    body.debounce = {
      ...debounce, delay: durationText(debounce.delay, 'debounce.delay'),
      ...(debounce.max !== undefined && { max: durationText(debounce.max, 'debounce.max') })
    }
  }
  return body
}
