// Schedules: recurring starts.

import { durationText, type Duration } from './duration.js'
import type { Api, CallOptions } from './http.js'
import { argumentText } from './json.js'

/** What a schedule does. */
export interface ScheduleOptions {
  job: string
  /** Five fields: minute, hour, day, month, weekday. */
  cron: string
  /** `UTC` unless given. */
  timezone?: string
  payload?: unknown
  queueName?: string
  /** What to do while the last run is still going on; `skip` unless given. */
  overlap?: 'skip' | 'allow' | 'replace'
  /** What to do about times that were missed; `one` unless given. */
  catchUp?: 'none' | 'one' | 'all'
  /** Each start is put off by up to this, at random. */
  jitter?: Duration
}

/** A schedule as the API shows it. */
export interface Schedule {
  name: string
  job: string
  cron: string
  timezone: string
  payload?: unknown
  queueName?: string
  overlap?: string
  catchUp?: string
  /** The next five times. */
  next?: string[]
  [more: string]: unknown
}

/**
 * `stackshift.schedules`.
 *
 * @example
 * const { next } = await stackshift.schedules.set('weekly', { job: 'digest', cron: '0 8 * * 1', overlap: 'skip' })
 */
export class Schedules {
  /** Made by StackShift. @internal */
  constructor(private readonly api: Api) {}

  /** All of them. */
  async list(options: CallOptions = {}): Promise<Schedule[]> {
    const all: Schedule[] = []
    let cursor: string | undefined
    do {
      const { body } = await this.api.call<{ schedules: Schedule[], nextCursor?: string | null }>('GET', '/v1/schedules',
        { signal: options.signal, query: { cursor } })
      all.push(...body.schedules)
      cursor = body.nextCursor ?? undefined
    } while (cursor !== undefined)
    return all
  }

  /**
   * Makes a schedule, or changes it.
   *
   * @example
   * await stackshift.schedules.set('nightly-report', { job: 'report', cron: '0 3 * * *', timezone: 'Europe/Berlin' })
   */
  async set(name: string, schedule: ScheduleOptions, options: CallOptions = {}): Promise<Schedule> {
    const { payload, jitter, ...rest } = schedule
    const settings = JSON.stringify({ ...rest, jitter: jitter === undefined ? undefined : durationText(jitter, 'jitter') })
    const payloadText = payload === undefined ? '' : `,"payload":${argumentText(payload, 'the payload')}`
    const { body } = await this.api.call<Schedule>('PUT', path(name),
      { ...options, body: `${settings.slice(0, -1)}${payloadText}}` })
    return body
  }

  /** Removes a schedule; its runs go on. */
  async delete(name: string, options: CallOptions = {}): Promise<void> {
    await this.api.call('DELETE', path(name), options)
  }

  /** Starts a run of it now. Not repeated by itself if the answer is lost. */
  async trigger(name: string, options: CallOptions = {}): Promise<Record<string, unknown>> {
    return (await this.api.call<Record<string, unknown>>('POST', `${path(name)}/trigger`, options)).body
  }
}

function path(name: string): string {
  return `/v1/schedules/${encodeURIComponent(name)}`
}
