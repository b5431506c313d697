// Lengths of time as texts, and points of time.

import { StackShiftError } from './errors.js'

/**
 * A length of time: `500ms`, `30s`, `5m`, `24h`, `30d`, a sum such as `1h30m`, or a number of milliseconds.
 *
 * @example
 * const patience: Duration[] = ['90s', '1h30m', 2500]
 */
export type Duration = string | number

const UNITS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }
const MS_MAX = 315_360_000_000 // 10 years of 365 days

function refuse(value: unknown, argument: string): never {
  throw new StackShiftError('invalid_argument', 400, `${argument} '${String(value).slice(0, 40)}' is not a duration; such `
    + 'as 500ms, 30s, 5m, 24h, 30d or 1h30m, or a number of milliseconds, up to 10 years, are allowed')
}

/** The length in milliseconds. `argument` is what an error calls it. */
export function durationMs(value: Duration, argument: string): number {
  if (typeof value === 'number') {
    return value >= 0 && value <= MS_MAX ? Math.ceil(value) : refuse(value, argument)
  }
  if (typeof value !== 'string' || !/^(\d{1,12}(ms|s|m|h|d))+$/.test(value)) return refuse(value, argument)
  let total = 0
  for (const [, digits, unit] of value.matchAll(/(\d+)(ms|s|m|h|d)/g)) total += Number(digits) * UNITS[unit!]!
  return total <= MS_MAX ? total : refuse(value, argument)
}

/** The length as the server reads it. It knows no length of nothing, so that is the shortest there is. */
export function durationText(value: Duration, argument: string): string {
  const ms = durationMs(value, argument)
  return typeof value === 'string' && ms > 0 ? value : `${Math.max(1, ms)}ms`
}

/** A point of time as RFC 3339. */
export function timeText(value: Date | string, argument: string): string {
  const ms = value instanceof Date ? value.getTime() : Date.parse(value)
  if (Number.isNaN(ms)) {
    throw new StackShiftError('invalid_argument', 400, `${argument} '${String(value).slice(0, 40)}' is not a time; a Date, `
      + 'or a text such as 2026-05-06T09:00:00Z, is allowed')
  }
  return value instanceof Date ? value.toISOString() : value
}

/** What a Retry-After header asks for, in milliseconds: seconds, or a date. */
export function retryAfterMs(header: string | undefined): number | undefined {
  if (header === undefined || header.trim() === '') return undefined
  const seconds = Number(header)
  const ms = Number.isNaN(seconds) ? Date.parse(header) - Date.now() : seconds * 1000
  return Number.isNaN(ms) ? undefined : Math.max(0, ms)
}
