// The namespace's state: in a handler, remembered and changed exactly once; and from outside, over the API.

import type { Call } from './call.js'
import { durationMs, durationText, timeText, type Duration } from './duration.js'
import { StackShiftError } from './errors.js'
import { sleep, type Api, type CallOptions } from './http.js'
import { argumentText, jsonText } from './json.js'
import { uuid } from './platform.js'
import type { StateValue } from './types.js'

/**
 * The settings of a change.
 *
 * @example
 * const { version } = (await state.get('draft'))!
 * await state.set('draft', 'new', { ifVersion: version, expiresAt: new Date(Date.now() + 60_000) })
 */
export interface StateSetOptions {
  /** When the value goes away; unless given, never. */
  expiresAt?: Date | string
  /** Only if this is the version now; 0: only if there is no value. Else a `conflict`. */
  ifVersion?: number
}

/**
 * The settings of a lock that a run takes.
 *
 * @example
 * const got = await state.lock('import', { ttl: '10m', wait: '1h' })
 */
export interface LockOptions {
  /** How long it holds at most; unless given, until the run ends. */
  ttl?: Duration
  /** How long to wait for it if somebody else has it; unless given, not at all. */
  wait?: Duration
}

// A lock that is held is asked for again after these times, each asking remembered. Short pauses are waited out, long
// ones are slept, without a worker.
const LOCK_PAUSE_MS = 100
const LOCK_PAUSE_MS_MAX = 60_000
const LOCK_SLEEP_MS = 5000

/** The pauses between askings in `waitMs`: the same for each attempt, since a replay has to ask as often. */
export function lockPauses(waitMs: number): number[] {
  const pauses: number[] = []
  let left = waitMs
  for (let pause = LOCK_PAUSE_MS; left > 0; pause = Math.min(LOCK_PAUSE_MS_MAX, pause * 1.5)) {
    pauses.push(Math.min(left, Math.round(pause)))
    left -= pause
  }
  return pauses
}

/**
 * The state as a handler sees it: reads see the run's own writes, and all of it is remembered.
 *
 * @example
 * stackshift.job('count', async ({ state }) => ({ total: await state.increment('total') }))
 */
export class HandlerState {
  readonly #call: Call

  /** Made for each call of a handler. @internal */
  constructor(call: Call) {
    this.#call = call
  }

  /**
   * Reads a value; null: there is none.
   *
   * @example
   * const last = await state.get<{ processed: number }>('onboarding:last')
   * log.info('so far', { processed: last?.value.processed ?? 0 })
   */
  get<T = unknown>(key: string): Promise<StateValue<T> | null> {
    return this.#ask('get', key, `{}`)
  }

  /**
   * Writes a value, and gives its new version.
   *
   * @example
   * await state.set('onboarding:last', { processed: 7 }, { expiresAt: new Date(Date.now() + 7 * 864e5) })
   */
  set(key: string, value: unknown, options: StateSetOptions = {}): Promise<{ version: number }> {
    return this.#ask('set', key, () => {
      const text = jsonText(value, `the value of state "${key}"`)
      return `{"value":${text},${JSON.stringify(setBody(options)).slice(1)}`
    })
  }

  /** Removes a value; true: there was one. */
  delete(key: string): Promise<boolean> {
    return this.#ask('delete', key, '{}')
  }

  /**
   * Adds to a number, and gives the sum; what is not there counts as 0.
   *
   * @example
   * const rows = await state.increment(`files:${payload.fileId}:rows`, batch.length)
   */
  increment(key: string, by = 1, options: Pick<StateSetOptions, 'expiresAt'> = {}): Promise<number> {
    return this.#ask('increment', key, () => JSON.stringify({ by, ...setBody(options) }))
  }

  /**
   * Takes a lock for this run; false: somebody else has it, and had it for all of `wait`. It is freed when the run
   * ends, when `ttl` is over, or by `unlock`.
   *
   * @example
   * if (!await state.lock(`account:${id}`, { ttl: '5m', wait: '1m' })) throw new Error('the account is busy')
   */
  async lock(key: string, options: LockOptions = {}): Promise<boolean> {
    const body = JSON.stringify({ ttl: options.ttl === undefined ? null : durationText(options.ttl, 'ttl') })
    const pauses = options.wait === undefined ? [] : lockPauses(durationMs(options.wait, 'wait'))
    for (const pause of pauses) {
      if (await this.#ask<boolean>('lock', key, body)) return true
      if (pause >= LOCK_SLEEP_MS) await this.#sleep(pause)
      else if (!this.#call.replaying) await sleep(pause)
    }
    return this.#ask('lock', key, body)
  }

  /** Gives a lock back; false: the run did not have it. */
  unlock(key: string): Promise<boolean> {
    return this.#ask('unlock', key, '{}')
  }

  /** `body`: what the action takes besides the key, as the text of an object. */
  #ask<T>(action: string, key: string, body: string | (() => string)): Promise<T> {
    const call = this.#call
    return call.ask('state', `state.${action}`, `state.${action}("${key}"${action === 'set' ? ', …' : ''})`, ask => {
      checkKey(key)
      const rest = (typeof body === 'string' ? body : body()).slice(1)
      call.enter()
      call.commit(`{"op":"state","name":${JSON.stringify(ask.name)},"action":"${action}","key":${JSON.stringify(key)}`
        + `${rest === '}' ? '' : ','}${rest}`, result => call.give(ask, result))
    })
  }

  #sleep(ms: number): Promise<void> {
    const call = this.#call
    return call.ask('sleep', 'state.lock.wait', 'state.lock(…)', ask => {
      call.suspend(JSON.stringify({ op: 'sleep', name: ask.name, duration: `${ms}ms` }))
    })
  }
}

function setBody(options: StateSetOptions): Record<string, unknown> {
  return {
    expiresAt: options.expiresAt === undefined ? null : timeText(options.expiresAt, 'expiresAt'),
    ...(options.ifVersion !== undefined && { ifVersion: options.ifVersion })
  }
}

/** The settings of a lock that a program takes. */
export interface ClientLockOptions extends LockOptions, CallOptions {
  /** Who has it: the same owner may take it again, and give it back. Unless given, this StackShift. */
  owner?: string
}

/**
 * `stackshift.state`: the state from outside of handlers.
 *
 * @example
 * await stackshift.state.set('maintenance', true, { expiresAt: new Date(Date.now() + 3_600_000) })
 */
export class StateClient {
  private owner: string | undefined

  /** Made by StackShift. @internal */
  constructor(private readonly api: Api) {}

  /**
   * Reads a value; null: there is none.
   *
   * @example
   * const total = await stackshift.state.get<number>('onboarded:total')
   */
  async get<T = unknown>(key: string, options: CallOptions = {}): Promise<StateValue<T> & { key: string } | null> {
    return this.orNull(this.api.call<StateValue<T> & { key: string }>('GET', path(key), options))
  }

  /** Writes a value, and gives it back with its new version. */
  async set<T>(key: string, value: T, options: StateSetOptions & CallOptions = {}):
  Promise<StateValue<T> & { key: string }> {
    const text = argumentText(value, `the value of state "${key}"`)
    const { body } = await this.api.call<StateValue<T> & { key: string }>('PUT', path(key), {
      signal: options.signal, body: `{"value":${text},${JSON.stringify(setBody(options)).slice(1)}`,
      // Said twice, it would find the version that it has made itself.
      repeat: options.ifVersion === undefined ? 'safe' : 'unless_arrived'
    })
    return body
  }

  /** Removes a value; false: there was none. */
  async delete(key: string, options: CallOptions = {}): Promise<boolean> {
    return await this.orNull(this.api.call('DELETE', path(key), options)) !== null
  }

  /** Adds to a number, and gives the sum. Not repeated by itself if the answer is lost. */
  async increment(key: string, by = 1, options: Pick<StateSetOptions, 'expiresAt'> & CallOptions = {}): Promise<number> {
    const { body } = await this.api.call<{ value: number }>('POST', path(key, 'increment'),
      { signal: options.signal, body: { by, ...setBody(options) } })
    return body.value
  }

  /**
   * Takes a lock; false: somebody else has it, and had it for all of `wait`.
   *
   * @example
   * if (await stackshift.state.lock('nightly', { ttl: '10m' })) {
   *   try { await work() } finally { await stackshift.state.unlock('nightly') }
   * }
   */
  async lock(key: string, options: ClientLockOptions = {}): Promise<boolean> {
    const owner = options.owner ?? await this.ownName()
    const body = { owner, ttl: options.ttl === undefined ? null : durationText(options.ttl, 'ttl') }
    const end = Date.now() + (options.wait === undefined ? 0 : durationMs(options.wait, 'wait'))
    for (let pause = LOCK_PAUSE_MS; ; pause = Math.min(LOCK_SLEEP_MS, pause * 1.5)) {
      try {
        await this.api.call('POST', path(key, 'lock'), { signal: options.signal, body, repeat: 'safe' })
        return true
      } catch (error) {
        if (!(error instanceof StackShiftError) || error.status !== 409) throw error
      }
      const left = end - Date.now()
      if (left <= 0) return false
      await sleep(Math.min(pause, left), options.signal)
    }
  }

  /** Gives a lock back; false: `owner` (unless given, this StackShift) did not have it. */
  async unlock(key: string, options: { owner?: string } & CallOptions = {}): Promise<boolean> {
    const owner = options.owner ?? await this.ownName()
    try {
      const { body, repeated } = await this.api.call<{ unlocked?: boolean } | undefined>('POST', path(key, 'unlock'),
        { signal: options.signal, body: { owner }, repeat: 'safe' })
      return repeated || body?.unlocked !== false
    } catch (error) {
      if (error instanceof StackShiftError && (error.status === 404 || error.status === 409)) return false
      throw error
    }
  }

  private async ownName(): Promise<string> {
    return this.owner ??= `sdk:${await uuid()}`
  }

  private async orNull<T>(answer: Promise<{ body: T }>): Promise<T | null> {
    try {
      return (await answer).body
    } catch (error) {
      if (error instanceof StackShiftError && error.status === 404) return null
      throw error
    }
  }
}

function checkKey(key: string): void {
  if (typeof key !== 'string' || key === '') {
    throw new StackShiftError('invalid_argument', 400, 'the key of a state is a text')
  }
}

function path(key: string, action?: string): string {
  checkKey(key)
  return `/v1/state/${encodeURIComponent(key)}${action === undefined ? '' : `/${action}`}`
}
