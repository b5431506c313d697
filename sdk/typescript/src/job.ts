// Jobs: what a program serves, under which names, with which options.

import type { Call } from './call.js'
import type { Duration } from './duration.js'
import { durationText } from './duration.js'
import { StackShiftError } from './errors.js'
import { HandlerState } from './state.js'
import { Step } from './step.js'
import { NAME, PROTOCOL } from './protocol.js'
import type { Backoff, RunError, RunInfo, StartedRun, StartOptions } from './types.js'

/**
 * Writes lines into the run's log. They are committed with what the handler does next, and not again in a replay.
 *
 * @example
 * stackshift.job('import', async ({ log, payload }) => {
 *   log.info('importing', { rows: payload.rows.length })
 * })
 */
export interface Log {
  debug(message: string, fields?: Record<string, unknown>): void
  info(message: string, fields?: Record<string, unknown>): void
  warn(message: string, fields?: Record<string, unknown>): void
  error(message: string, fields?: Record<string, unknown>): void
}

/**
 * What a handler is given.
 *
 * @example
 * async function remind({ payload, step, log, attempt, signal }: Context<{ user: string }>): Promise<void> {
 *   log.info('reminding', { attempt })
 *   await step.run('mail', () => mail(payload.user, { signal }))
 * }
 * stackshift.job('remind', remind)
 */
export interface Context<P = unknown> {
  /** What the run was started with. */
  readonly payload: P
  /** The durable calls. */
  readonly step: Step
  /** The namespace's state, with this run as its owner. */
  readonly state: HandlerState
  readonly run: RunInfo
  /** Which attempt this is; the first is 1. */
  readonly attempt: number
  readonly log: Log
  /** Aborts when the run is cancelled, within 5 seconds, or has gone to another worker. */
  readonly signal: AbortSignal
  /** Says how far the run has come: a number or anything else that JSON can hold. */
  progress(value: unknown): void
  /** The trace that the call belongs to, as W3C Trace Context has it. */
  readonly traceparent: string | null
}

/**
 * A job's function. What it returns is the run's result.
 *
 * @example
 * const double: Handler<{ n: number }, number> = ({ payload }) => payload.n * 2
 */
export type Handler<P = unknown, R = unknown> = (context: Context<P>) => R | PromiseLike<R>

/** What `onFailure` is given. */
export interface FailureContext<P = unknown> {
  readonly payload: P
  readonly run: RunInfo
  readonly attempt: number
  readonly error: RunError
  readonly log: Log
}

/** What `onCancel` is given. */
export interface CancelContext<P = unknown> {
  readonly payload: P
  readonly run: RunInfo
  readonly attempt: number
  readonly log: Log
}

/**
 * The settings of a job; those of a start go before them.
 *
 * @example
 * const options: JobOptions<{ order: string }> = {
 *   maxAttempts: 8, backoff: { initial: '5s' }, timeout: '1d',
 *   onFailure: ({ payload, error }) => page(`order ${payload.order}: ${error.message}`)
 * }
 */
export interface JobOptions<P = unknown> {
  /** How many attempts a run has; 5 unless the queue says otherwise. */
  maxAttempts?: number
  /** How long to wait between attempts. */
  backoff?: Backoff
  /** Of a whole run, waits included. */
  timeout?: Duration
  /** Of the code: stored with each run and attempt. */
  version?: string
  /**
   * Called once the handler's last attempt has failed, before the run is said to have failed; if the process dies just
   * then, again. A run that fails without its handler (a timeout, a crashed worker) does not come by here.
   */
  onFailure?: (context: FailureContext<P>) => unknown
  /** Called when a handler at work learns that its run was cancelled. A run that only waits has no handler at work. */
  onCancel?: (context: CancelContext<P>) => unknown
}

/** What a Job starts its runs with. */
export type Starter = <P, R>(job: string, payload: P | undefined, options?: StartOptions) => Promise<StartedRun<P, R>>

/**
 * A job as `stackshift.job()` gives it back: its name, and a start that knows its payload's type.
 *
 * @example
 * const greet = stackshift.job<{ name: string }>('greet', ({ payload }) => `hello, ${payload.name}`)
 * await greet.start({ name: 'Ada' })
 */
export class Job<P = unknown, R = unknown> {
  /** Only for the types: which payload, and which result. */
  declare readonly types: { payload: P, result: R }

  constructor(readonly name: string, readonly options: JobOptions<P>, readonly handler: Handler<P, R>,
    private readonly starter: Starter) {
    if (typeof name !== 'string' || !NAME.test(name)) {
      throw new StackShiftError('invalid_argument', 400,
        `job '${String(name).slice(0, 210)}' is not a name; 1 to 200 characters of A-Z a-z 0-9 _ . : / @ - are allowed`)
    }
    if (typeof handler !== 'function') {
      throw new StackShiftError('invalid_argument', 400, `the handler of job ${name} is not a function`)
    }
  }

  /** Starts a run of this job. */
  start(payload: P, options?: StartOptions): Promise<StartedRun<P, R>> {
    return this.starter<P, R>(this.name, payload, options)
  }
}

/** The jobs that a program serves. Their payloads' types end here: a call brings what it brings. */
export class Jobs {
  private readonly jobs = new Map<string, Job>()

  constructor(readonly version: string | null) {}

  add<P, R>(job: Job<P, R>): void {
    if (this.jobs.has(job.name)) {
      throw new StackShiftError('invalid_argument', 400, `job ${job.name} is there already; a name stands for one handler`)
    }
    this.jobs.set(job.name, job as unknown as Job)
  }

  get(name: string): Job | undefined {
    return this.jobs.get(name)
  }

  names(): string[] {
    return [...this.jobs.keys()]
  }

  /** What a worker learns by GET. */
  describe(): string {
    const jobs = [...this.jobs.values()].map(({ name, options }) => ({
      name,
      maxAttempts: options.maxAttempts,
      backoff: options.backoff,
      timeout: options.timeout === undefined ? undefined : durationText(options.timeout, 'timeout'),
      version: options.version
    }))
    return JSON.stringify({ protocol: PROTOCOL, version: this.version, jobs })
  }
}

/** The levels as the run's log names them. */
export type Level = 'debug' | 'info' | 'warning' | 'error'

/** What the handler of a call is given. */
export function contextOf(call: Call): Context {
  return {
    payload: call.request.payload,
    step: new Step(call),
    state: new HandlerState(call),
    run: call.run,
    attempt: call.run.attempt,
    log: logOf(call),
    get signal() { return call.signal },
    progress: value => call.progress(value),
    traceparent: call.request.traceparent ?? null
  }
}

/** A Log that writes into a call. */
export function logOf(call: Pick<Call, 'log'>): Log {
  return {
    debug: (message, fields) => call.log('debug', message, fields),
    info: (message, fields) => call.log('info', message, fields),
    warn: (message, fields) => call.log('warning', message, fields),
    error: (message, fields) => call.log('error', message, fields)
  }
}
