// Runs, looked at and controlled from outside.

import { durationMs, timeText, type Duration } from './duration.js'
import { StackShiftError } from './errors.js'
import type { Api, CallOptions } from './http.js'
import { argumentText } from './json.js'
import type { Run, RunFilter, RunOutcome, TimelineEntry } from './types.js'

const POLL_MS = 30_000

/** How a run is forked. */
export interface ForkOptions extends CallOptions {
  /** The first step that is done anew. */
  fromStep: string
  /** Another payload, other results of steps before. */
  overrides?: { payload?: unknown, steps?: Record<string, unknown> }
}

/**
 * `stackshift.runs`.
 *
 * @example
 * for (const { id } of (await stackshift.runs.list({ status: 'failed', job: 'charge' })).runs) await stackshift.runs.retry(id)
 */
export class Runs {
  /** Made by StackShift. @internal */
  constructor(private readonly api: Api) {}

  /**
   * One run. Throws StackShiftError `not_found` where there is none.
   *
   * @example
   * const { status, attempt } = await stackshift.runs.get(id)
   */
  async get<P = unknown, R = unknown>(id: string, options: CallOptions = {}): Promise<Run<P, R>> {
    return (await this.api.call<Run<P, R>>('GET', path(id), options)).body
  }

  /**
   * Some runs, the newest first. `nextCursor` gets the next ones; null: these were the last.
   *
   * @example
   * const { runs, nextCursor } = await stackshift.runs.list({ status: 'failed', queue: 'emails', limit: 50 })
   */
  async list(filter: RunFilter & { limit?: number, cursor?: string } & CallOptions = {}):
  Promise<{ runs: Run[], nextCursor: string | null }> {
    const { signal, limit, cursor } = filter
    const { body } = await this.api.call<{ runs: Run[], nextCursor: string | null }>('GET', '/v1/runs',
      { signal, query: { ...filterQuery(filter), limit, cursor } })
    return body
  }

  /** What happened in a run, the oldest first. */
  timeline(id: string, options: CallOptions = {}): Promise<TimelineEntry[]> {
    return this.all(id, 'timeline', options)
  }

  /** What a run remembers, in the order of its commits. */
  steps(id: string, options: CallOptions = {}): Promise<Record<string, unknown>[]> {
    return this.all(id, 'steps', options)
  }

  /** The attempts of a run. */
  attempts(id: string, options: CallOptions = {}): Promise<Record<string, unknown>[]> {
    return this.all(id, 'attempts', options)
  }

  /** The lines that a run's handler has logged. */
  logs(id: string, options: CallOptions = {}): Promise<Record<string, unknown>[]> {
    return this.all(id, 'logs', options)
  }

  /** One sentence: what the run waits for now. */
  async why(id: string, options: CallOptions = {}): Promise<string> {
    return (await this.api.call<{ why: string }>('GET', path(id, 'why'), options)).body.why
  }

  /**
   * Waits for the end of a run, for up to 30 seconds unless `wait` says otherwise (0: only looks). A status that is not
   * an end says that the time ran out.
   *
   * @example
   * const outcome = await stackshift.runs.result<{ onboarded: boolean }>(id, { wait: '2m' })
   * if (outcome.status === 'completed') console.log(outcome.result.onboarded)
   */
  async result<R = unknown>(id: string, options: { wait?: Duration } & CallOptions = {}): Promise<RunOutcome<R>> {
    const end = Date.now() + durationMs(options.wait ?? POLL_MS, 'wait')
    for (;;) {
      const left = Math.max(0, Math.min(POLL_MS, end - Date.now()))
      const { status, body } = await this.api.call<RunOutcome<R>>('GET', path(id, 'result'), {
        signal: options.signal, waitMs: left, query: { wait: left === 0 ? undefined : `${left}ms` }
      })
      if (status !== 202 || Date.now() >= end) return body
    }
  }

  /** Cancels a run, and its children. Throws `conflict` if it has ended. */
  cancel(id: string, options: { reason?: string } & CallOptions = {}): Promise<Run> {
    return this.change(id, 'cancel', { reason: options.reason }, options, run => run.status === 'cancelled')
  }

  /** Lets a failed or cancelled run go on: completed steps are reused. Throws `conflict` in another state. */
  retry(id: string, options: { maxAttempts?: number } & CallOptions = {}): Promise<Run> {
    return this.change(id, 'retry', { maxAttempts: options.maxAttempts }, options,
      run => run.status !== 'failed' && run.status !== 'cancelled')
  }

  /** Gives a run that is not leased another time. */
  reschedule(id: string, scheduledAt: Date | string, options: CallOptions = {}): Promise<Run> {
    return this.change(id, 'reschedule', { scheduledAt: timeText(scheduledAt, 'scheduledAt') }, options, () => false)
  }

  /**
   * Starts a new run that reuses the steps before `fromStep`. Not repeated by itself if the answer is lost.
   *
   * @example
   * const again = await stackshift.runs.fork(id, { fromStep: 'charge', overrides: { steps: { quote: { price: 7 } } } })
   */
  async fork(id: string, options: ForkOptions): Promise<Run> {
    const overrides = argumentText(options.overrides ?? {}, 'overrides')
    const { body } = await this.api.call<Run>('POST', path(id, 'fork'),
      { signal: options.signal, body: `{"fromStep":${JSON.stringify(options.fromStep)},"overrides":${overrides}}` })
    return body
  }

  /** Cancels all runs that fit; with `dryRun` only counts them. */
  cancelAll(filter: RunFilter & { dryRun?: boolean } & CallOptions): Promise<{ count: number }> {
    return this.bulk('cancel', filter)
  }

  /** Retries all runs that fit; with `dryRun` only counts them. */
  retryAll(filter: RunFilter & { dryRun?: boolean } & CallOptions): Promise<{ count: number }> {
    return this.bulk('retry', filter)
  }

  private async bulk(action: string, filter: RunFilter & { dryRun?: boolean } & CallOptions): Promise<{ count: number }> {
    const { signal, dryRun } = filter
    const { body } = await this.api.call<{ count: number }>('POST', `/v1/runs/${action}`,
      { signal, body: { ...filterQuery(filter), dryRun }, repeat: 'safe' })
    return body
  }

  /** `done`: does a run look as if an earlier try of this call, whose answer was lost, has changed it? */
  private async change(id: string, action: string, body: unknown, { signal }: CallOptions,
    done: (run: Run) => boolean): Promise<Run> {
    for (let tries = 1; ; tries++) {
      try {
        return (await this.api.call<Run>('POST', path(id, action), { signal, body })).body
      } catch (error) {
        if (!(error instanceof StackShiftError)) throw error
        // It may have arrived, or arrive late: then the change that it has made itself looks like a wrong state.
        const refused = error.status !== 0 && error.status < 502
        if (refused && (tries === 1 || error.code !== 'conflict')) throw error
        const run = await this.get(id, { signal })
        if (done(run)) return run
        if (refused || tries > 3) throw error
      }
    }
  }

  /** All pages of a list of a run's. */
  private async all<T>(id: string, what: string, { signal }: CallOptions): Promise<T[]> {
    const all: T[] = []
    let cursor: string | undefined
    do {
      const { body } = await this.api.call<Record<string, T[]> & { nextCursor?: string | null }>('GET', path(id, what),
        { signal, query: { cursor } })
      all.push(...body[what] ?? [])
      cursor = body.nextCursor ?? undefined
    } while (cursor !== undefined)
    return all
  }
}

function path(id: string, what?: string): string {
  if (typeof id !== 'string' || id === '') {
    throw new StackShiftError('invalid_argument', 400, 'a run is named by its id, a text')
  }
  return `/v1/runs/${encodeURIComponent(id)}${what === undefined ? '' : `/${what}`}`
}

function filterQuery(filter: RunFilter): Record<string, string | string[] | undefined> {
  const { status, job, queue, deadLetterQueue, tag, since, until } = filter
  return {
    status, job, queue, deadLetterQueue,
    tag: typeof tag === 'object' ? Object.entries(tag).map(([key, value]) => `${key}:${value}`) : tag,
    since: since === undefined ? undefined : timeText(since, 'since'),
    until: until === undefined ? undefined : timeText(until, 'until')
  }
}
