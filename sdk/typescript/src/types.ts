// The shapes that the API speaks in, and the options of its calls.

import type { Duration } from './duration.js'

/** Where a run is. The last three are ends. */
export type RunStatus =
  'scheduled' | 'queued' | 'running' | 'waiting' | 'retrying' | 'completed' | 'failed' | 'cancelled'

/**
 * How long to wait before the next try: `initial`, then `factor` times as long each time, up to `max`, more or less by
 * the part `jitter`. What is left out comes from the job, then from the queue, then is 1s, 2, 1h and 0.2.
 *
 * @example
 * const backoff: Backoff = { initial: '5s', max: '10m' }
 */
export interface Backoff {
  initial?: string
  factor?: number
  max?: string
  jitter?: number
}

/**
 * Starts that come shortly after one another become one run.
 *
 * @example
 * await stackshift.start('reindex', {}, { debounce: { key: 'shop:7', delay: '30s', max: '5m' } })
 */
export interface Debounce {
  /** Starts of the same job and key belong together. */
  key?: string
  /** How long no further start may have come. */
  delay: Duration
  /** How long the run is put off at most. */
  max?: Duration
}

/**
 * The options of a start.
 *
 * @example
 * await stackshift.start('digest', { user: 7 }, { idempotencyKey: 'digest:7', scheduledAt: tomorrow, priority: 5, tags: { plan: 'trial' } })
 */
export interface StartOptions {
  /** The queue; `default` unless given. */
  queueName?: string
  /** Makes a repeated start the same run. Unless given, the SDK makes one up, so that its own repeats are safe. */
  idempotencyKey?: string
  /** How long the key holds; unless given, as long as the run is kept. */
  idempotencyTtl?: Duration
  /** What a failed or cancelled run with the same key does: `reuse` gives it, `restart` makes way for a new one. */
  onTerminal?: 'reuse' | 'restart'
  /** How many attempts; unless given, the job's setting, else the queue's, else 5. */
  maxAttempts?: number
  backoff?: Backoff
  /** When it is due; at once unless given, or if that is past. */
  scheduledAt?: Date | string
  /** Higher first; −32768 to 32767. */
  priority?: number
  /** Runs of one key share the queue's limit for keys. */
  concurrencyKey?: string
  debounce?: Debounce
  /** Of the whole run, from when it is first due, waits included. */
  timeout?: Duration
  tags?: Record<string, string>
  /** Ends the waiting for the answer, not the run. */
  signal?: AbortSignal
}

/** One of several starts. */
export interface StartRequest<P = unknown> extends Omit<StartOptions, 'signal'> {
  job: string
  payload?: P
}

/** Why a run failed. */
export interface RunError {
  name?: string
  message: string
  stack?: string
  /** The step where it happened. */
  step?: string
  retryable?: boolean
}

/** What a run waits for; `kind` says which other members there are. */
export interface WaitingFor {
  kind: 'time' | 'retry' | 'event' | 'sleep' | 'child' | 'version' | 'worker' | 'paused' | 'limit' | 'endpoint'
    | (string & {})
  until?: string
  event?: string
  correlationKey?: string
  step?: string
  expected?: string
  found?: string
  [detail: string]: unknown
}

/** One execution of a job. */
export interface Run<P = unknown, R = unknown> {
  id: string
  job: string
  queueName: string
  status: RunStatus
  payload: P
  result: R | null
  error: RunError | null
  attempt: number
  maxAttempts: number
  priority: number
  tags: Record<string, string>
  concurrencyKey: string | null
  idempotencyKey: string | null
  version: string | null
  parentRunId: string | null
  createdAt: string
  scheduledAt: string
  startedAt: string | null
  finishedAt: string | null
  nextAttemptAt: string | null
  waitingFor: WaitingFor | null
  deadLetterQueue: string | null
  deadLetteredAt: string | null
}

/** A run as a start gives it back. `created` is false where its idempotency key was known already. */
export interface StartedRun<P = unknown, R = unknown> extends Run<P, R> {
  created: boolean
}

/**
 * What has become of a run: its result, its error, or only where it is.
 *
 * @example
 * const outcome = await stackshift.runs.result<number>(id)
 * if (outcome.status === 'completed') return outcome.result
 * if (outcome.status === 'failed') throw new Error(outcome.error?.message)
 */
export type RunOutcome<R = unknown> =
  | { status: 'completed', result: R, error?: null }
  | { status: 'failed' | 'cancelled', result?: null, error: RunError | null }
  | { status: Exclude<RunStatus, 'completed' | 'failed' | 'cancelled'>, result?: undefined, error?: undefined }

/**
 * Which runs; all that are given have to fit.
 *
 * @example
 * await stackshift.runs.retryAll({ status: 'failed', tag: { plan: 'trial' }, since: '2026-05-06T09:00:00Z' })
 */
export interface RunFilter {
  status?: RunStatus
  job?: string
  queue?: string
  deadLetterQueue?: string
  /** `plan:trial`, or `{ plan: 'trial' }`. */
  tag?: string | Record<string, string>
  /** Created at this time or later. */
  since?: Date | string
  /** Created before this time. */
  until?: Date | string
}

/** One line of a run's history. */
export interface TimelineEntry {
  at: string
  kind: string
  name: string | null
  attempt: number | null
  durationMs?: number | null
  detail?: unknown
  [more: string]: unknown
}

/** A durable signal, as a handler receives it. */
export interface ReceivedEvent<T = unknown> {
  timedOut: false
  id: string
  name: string
  correlationKey: string | null
  payload: T
  receivedAt: string
}

/** What a wait gives back when nothing came in time, with `onTimeout: 'continue'`. */
export interface TimedOut {
  timedOut: true
  payload: undefined
}

/** A value of the namespace's state. */
export interface StateValue<T = unknown> {
  value: T
  /** Grows with each change; for `ifVersion`. */
  version: number
  /** When it goes away; null: never. */
  expiresAt: string | null
}

/** What a handler is told of its run. */
export interface RunInfo {
  id: string
  job: string
  queueName: string
  attempt: number
  maxAttempts: number
  createdAt: string
  namespace: string
  version: string | null
  tags: Record<string, string>
}
